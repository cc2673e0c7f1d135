"""`/v1/responses`: answers, what is kept, and for whom; on the fake model."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import AsyncClient, Response
from serving import serving
from test_openai import check_error

MODELS = """
[[models]]
name = "echo"
task = "chat"
engine = "fake"
context_tokens = 40

[[models]]
name = "breaks"
task = "chat"
engine = "fake"
fake = { fail_after = 2 }
"""
URL = "/v1/responses"
WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
PARIS = '{"city": "Paris"}'
SOMEBODY = "admin-" + "k" * 40


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("responses"), MODELS) as client:
        yield client


async def ask(client: AsyncClient, said: Any = "one two three", **body: Any) -> Response:
    return await client.post(URL, json={"model": "echo", "input": said, **body})


async def answered(client: AsyncClient, said: Any = "one two three", **body: Any) -> dict[str, Any]:
    answer = await ask(client, said, **body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def text_of(response: dict[str, Any]) -> str:
    (item,) = response["output"]
    return str(item["content"][0]["text"])


async def test_an_answer_has_openai_s_shape_and_is_kept(client: AsyncClient) -> None:
    response = await answered(client, instructions="Be brief.", metadata={"a": "b"})
    (item,) = response["output"]
    assert response["id"].startswith("resp_")
    assert item.pop("id").startswith("msg_")
    part = {"type": "output_text", "text": "one two three", "annotations": [], "logprobs": []}
    assert item == {
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [part],
    }
    assert response["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 8,
    }
    said = {"object": "response", "status": "completed", "model": "echo", "store": True}
    said |= {"instructions": "Be brief.", "metadata": {"a": "b"}, "error": None}
    assert said.items() <= response.items()

    item["id"] = response["output"][0]["id"] = f"msg_{response['id'].removeprefix('resp_')}00"
    kept = await client.get(f"{URL}/{response['id']}")
    assert kept.json() == response
    items = (await client.get(f"{URL}/{response['id']}/input_items")).json()
    (sent,) = items["data"]
    assert (sent["role"], sent["content"][0]["text"]) == ("user", "one two three")
    assert (items["first_id"], items["last_id"], items["has_more"]) == (sent["id"],) * 2 + (False,)

    gone = await client.delete(f"{URL}/{response['id']}")
    assert gone.json() == {"id": response["id"], "object": "response", "deleted": True}
    for method in ("GET", "DELETE"):
        again = await client.request(method, f"{URL}/{response['id']}")
        check_error(again, 404, "response_not_found")


async def test_a_response_goes_on_from_the_one_before(client: AsyncClient) -> None:
    first = await answered(client, "one two", instructions="Not carried over.")
    second = await answered(client, "three", previous_response_id=first["id"])
    third = await answered(client, "four", previous_response_id=second["id"])
    # Echoed texts count as the assistant's turns.
    counted = [r["usage"]["input_tokens"] for r in (first, second, third)]
    assert counted == [5, 5, 7]
    assert third["previous_response_id"] == second["id"]
    refused = await ask(client, previous_response_id="resp_unknown")
    check_error(refused, 400, "previous_response_not_found", "previous_response_id")


async def test_a_reference_stands_for_an_item_of_an_answer(client: AsyncClient) -> None:
    first = await answered(client, "one two")
    reference = {"type": "item_reference", "id": first["output"][0]["id"]}
    told = {"role": "user", "content": [{"type": "input_text", "text": "three"}]}
    assert (await answered(client, [reference, told]))["usage"]["input_tokens"] == 3
    assert (await answered(client, [{"id": reference["id"]}, told]))["usage"]["input_tokens"] == 3
    unknown = {"type": "item_reference", "id": "msg_" + "0" * 34}
    refused = await ask(client, [told, unknown])
    check_error(refused, 400, "item_not_found", "input[1]")


async def test_what_is_not_to_be_kept_is_not(client: AsyncClient) -> None:
    response = await answered(client, store=False)
    assert response["store"] is False
    check_error(await client.get(f"{URL}/{response['id']}"), 404, "response_not_found")


async def test_a_function_is_called_and_its_output_read(client: AsyncClient) -> None:
    asked = {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "weather"}}
    first = await answered(client, PARIS, **asked)
    (call,) = first["output"]
    assert call["id"].startswith("fc_")
    assert (call["type"], call["status"]) == ("function_call", "completed")
    assert (call["name"], call["arguments"]) == ("weather", PARIS)
    assert first["tools"] == [WEATHER]
    assert first["tool_choice"] == asked["tool_choice"]

    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "Sunny"}
    kept = await answered(client, [result], previous_response_id=first["id"], tools=[WEATHER])
    echoed = [{"role": "user", "content": PARIS}, call, result]
    own = await answered(client, echoed, tools=[WEATHER], store=False)
    assert kept["usage"] == own["usage"]
    assert text_of(kept) == text_of(own) == PARIS
    refused = await ask(client, [{**result, "call_id": "call_unknown"}])
    assert "call_unknown" in check_error(refused, 400, "invalid_request", "input")


async def test_an_answer_that_was_cut_says_so(client: AsyncClient) -> None:
    response = await answered(client, max_output_tokens=2)
    assert response["status"] == response["output"][0]["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert text_of(response) == "one two"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "client runs functions"),
        ({"background": True}, "background", "at once, or streamed"),
        ({"conversation": "conv_1"}, "conversation", "previous_response_id"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "instructions"),
        ({"truncation": "auto"}, "truncation", "left out"),
        ({"include": ["message.output_text.logprobs"]}, "include[0]", ""),
        ({"text": {"format": {"type": "grammar"}}}, "text.format", ""),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice", "MCP"),
        ({"unheard_of": 1}, "unheard_of", ""),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0]",
            "read text",
        ),
        ({"input": [{"type": "computer_call"}]}, "input[0]", "function calls"),
    ],
)
async def test_what_cannot_be_done_is_refused_in_words(
    client: AsyncClient, body: dict[str, Any], param: str, words: str
) -> None:
    refused = await ask(client, **body)
    assert words in check_error(refused, 400, "unsupported_field", param)


async def test_an_input_without_anything_that_a_model_reads_is_refused(client: AsyncClient) -> None:
    refused = await ask(client, [{"type": "reasoning"}])
    assert "should have a message" in check_error(refused, 400, "invalid_request", "input")


async def test_what_has_no_effect_is_taken(client: AsyncClient) -> None:
    harmless: dict[str, Any] = {
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "user": "me",
        "service_tier": "auto",
        "truncation": "disabled",
        "prompt_cache_key": "k",
    }
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    said = {"role": "user", "content": "hello"}
    body = {"model": "echo", "input": [thought, said], **harmless}
    answer = await client.post(URL, json=body)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["user"], answer.json()["prompt_cache_key"]) == ("me", "k")
    assert answer.json()["reasoning"] == {"effort": "low", "summary": None}


async def test_nobody_reads_or_goes_on_from_the_response_of_another(tmp_path: Path) -> None:
    given = {"auth": "required", "admin_key": SOMEBODY}
    async with serving(tmp_path, MODELS, **given) as client:
        admin = {"Authorization": f"Bearer {SOMEBODY}"}
        key = await client.post("/keys", json={"name": "a", "scopes": ["chat"]}, headers=admin)
        other = {"Authorization": f"Bearer {key.json()['key']}"}
        body = {"model": "echo", "input": "hello"}
        mine = (await client.post(URL, json=body, headers=admin)).json()["id"]
        assert (await client.get(f"{URL}/{mine}", headers=admin)).status_code == 200
        for method in ("GET", "DELETE"):
            refused = await client.request(method, f"{URL}/{mine}", headers=other)
            check_error(refused, 404, "response_not_found")
        body["previous_response_id"] = mine
        refused = await client.post(URL, json=body, headers=other)
        check_error(refused, 400, "previous_response_not_found", "previous_response_id")


def events(answer: Response) -> list[dict[str, Any]]:
    """Return the events of a stream, whose names and numbers have to be right."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *blocks, empty = answer.text.split("\n\n")
    assert empty == ""
    lines = [block.split("\n") for block in blocks]
    found = [json.loads(data.removeprefix("data: ")) for _, data in lines]
    assert [name for name, _ in lines] == [f"event: {event['type']}" for event in found]
    assert [event["sequence_number"] for event in found] == [*range(len(found))]
    return found


async def test_a_text_is_streamed_in_openai_s_order_and_kept(client: AsyncClient) -> None:
    found = events(await ask(client, "one two", stream=True))
    assert [event["type"].removeprefix("response.") for event in found] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert found[0]["response"]["status"] == "in_progress"
    assert found[2]["item"]["content"] == found[0]["response"]["output"] == []
    assert found[6]["text"] == "".join(event["delta"] for event in found[4:6]) == "one two"
    whole = found[-1]["response"]
    assert whole["output"] == [found[8]["item"]]
    assert {event["item_id"] for event in found[3:8]} == {found[8]["item"]["id"]}
    assert (await client.get(f"{URL}/{whole['id']}")).json() == whole


async def test_a_call_is_streamed_argument_by_argument(client: AsyncClient) -> None:
    asked = {"tools": [WEATHER], "tool_choice": "required", "stream": True}
    found = events(await ask(client, PARIS, **asked))
    assert [event["type"].removeprefix("response.") for event in found] == [
        "created",
        "in_progress",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert found[5]["arguments"] == "".join(event["delta"] for event in found[3:5]) == PARIS
    assert found[2]["item"]["arguments"] == ""
    assert found[-1]["response"]["output"][0]["arguments"] == PARIS


async def test_a_stream_that_is_cut_or_fails_ends_with_an_event_that_says_so(
    client: AsyncClient,
) -> None:
    cut = events(await ask(client, stream=True, max_output_tokens=1))[-1]
    assert cut["type"] == "response.incomplete"
    assert cut["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    failed = events(await ask(client, model="breaks", stream=True))[-1]
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"]["code"] == "inference_failed"
    check_error(await client.get(f"{URL}/{failed['response']['id']}"), 404, "response_not_found")
