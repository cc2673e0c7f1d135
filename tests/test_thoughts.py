"""What a model thinks before its answer: from engines that tell it to clients that read it."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from httpx2 import AsyncClient
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseReasoningItem, ResponseStreamEvent
from openai_server import USAGE, Behaviour, Exchange, OpenAiServer, chunk
from pydantic import TypeAdapter
from serving import serving
from test_openai import events
from test_tools_smollm import TEMPLATE, server_of

from app.engines.chat_base import GenerationOptions, Message
from app.engines.llama_cpp.generator import LlamaCppGenerator
from app.engines.thoughts import Thought
from app.engines.tool_calls import Piece

MODELS = """
[[models]]
name = "thinker"
task = "chat"
engine = "fake"
fake = {{ thinks = "let me see" }}

[[models]]
name = "far"
task = "chat"
engine = "remote"
source = "openai:m"
base_url = "{url}"
"""
TOOLS = [{"type": "function", "function": {"name": "get"}}]
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAiServer]:
    with OpenAiServer() as server:
        yield server


@pytest.fixture(scope="module")
async def client(
    server: OpenAiServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("app"), MODELS.format(url=server.url)) as client:
        yield client


def thinks(*pieces: str, field: str = "reasoning_content") -> Behaviour:
    """Think in pieces, and answer a word."""
    usage = {**USAGE, "completion_tokens_details": {"reasoning_tokens": 2}}

    def behave(exchange: Exchange) -> None:
        exchange.begin()
        exchange.event(chunk({"role": "assistant", "content": ""}))
        for piece in pieces:
            exchange.event(chunk({field: piece, "content": None}))
        exchange.tokens("Yes")
        exchange.finish(usage=usage)

    return behave


async def chat(client: AsyncClient, model: str, **body: Any) -> Any:
    asked = [{"role": "user", "content": "Yes"}]
    answer = await client.post(
        "/v1/chat/completions", json={"model": model, "messages": asked, **body}
    )
    assert answer.status_code == 200, answer.text
    return answer


def ask_thinker(server: OpenAiServer, field: str) -> None:
    # Half of a character beyond 16 bits ends one piece, and begins the next.
    server.behave(thinks("let me", " see \ud83e", "\udd14", field=field))


MODELS_AND_THOUGHTS = [
    ("thinker", "", "let me see"),
    ("far", "reasoning_content", "let me see \U0001f914"),
    ("far", "reasoning", "let me see \U0001f914"),
]


@pytest.mark.parametrize(("model", "field", "thoughts"), MODELS_AND_THOUGHTS)
async def test_chat_completions_have_thoughts_beside_the_answer(
    client: AsyncClient, server: OpenAiServer, model: str, field: str, thoughts: str
) -> None:
    ask_thinker(server, field)
    (choice,) = (await chat(client, model)).json()["choices"]
    assert choice["message"]["content"] == "Yes"
    assert choice["message"]["reasoning_content"] == thoughts
    chunks = events(await chat(client, model, stream=True))
    deltas = [each["choices"][0]["delta"] for each in chunks]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == thoughts
    assert "".join(delta.get("content") or "" for delta in deltas) == "Yes"
    last = max(number for number, delta in enumerate(deltas) if "reasoning_content" in delta)
    assert last < next(number for number, delta in enumerate(deltas) if delta.get("content"))
    for each in chunks:
        ChatCompletionChunk.model_validate(each, strict=True)


@pytest.mark.parametrize(("model", "field", "thoughts"), MODELS_AND_THOUGHTS)
async def test_responses_have_an_item_of_thoughts(
    client: AsyncClient, server: OpenAiServer, model: str, field: str, thoughts: str
) -> None:
    ask_thinker(server, field)
    body: dict[str, Any] = {"model": model, "input": "Yes"}
    answer = (await client.post("/v1/responses", json=body)).json()
    reasoning, message = answer["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": thoughts}]
    assert message["content"][0]["text"] == "Yes"
    ResponseReasoningItem.model_validate(reasoning, strict=True)
    counted = answer["usage"]["output_tokens_details"]["reasoning_tokens"]
    assert counted == (2 if model == "far" else 0)

    streamed = await client.post("/v1/responses", json=body | {"stream": True})
    lines = [line[6:] for line in streamed.text.splitlines() if line.startswith("data: ")]
    last = json.loads(lines[-1])
    read = [EVENT.validate_json(line) for line in lines if '"response":' not in line]
    kinds = list(dict.fromkeys(event.type for event in read if "reasoning" in event.type))
    assert kinds == ["response.reasoning_text.delta", "response.reasoning_text.done"]
    deltas = [e.delta for e in read if e.type == "response.reasoning_text.delta"]
    assert "".join(deltas) == thoughts
    places = [e.output_index for e in read if hasattr(e, "output_index")]
    assert places == sorted(places)
    whole = last["response"]["output"]
    assert [item["type"] for item in whole] == ["reasoning", "message"]
    assert whole[0]["content"] == reasoning["content"]

    # A client may send it back, or refer to it; it goes on either way.
    back = [*answer["output"], {"role": "user", "content": "Yes"}]
    again = await client.post("/v1/responses", json=body | {"input": back})
    assert again.status_code == 200, again.text
    referred = [{"type": "item_reference", "id": reasoning["id"]}, back[-1]]
    again = await client.post("/v1/responses", json=body | {"input": referred})
    assert again.status_code == 200, again.text
    on = body | {"previous_response_id": answer["id"]}
    assert (await client.post("/v1/responses", json=on)).status_code == 200


async def test_a_call_comes_after_thoughts_and_a_cut_answer_may_have_nothing_else(
    client: AsyncClient,
) -> None:
    called = await chat(client, "thinker", tools=TOOLS, tool_choice="required")
    (choice,) = called.json()["choices"]
    assert choice["message"]["reasoning_content"] == "let me see"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "get"
    assert choice["message"]["content"] is None
    cut = {"model": "thinker", "input": "Yes", "max_output_tokens": 2}
    answer = (await client.post("/v1/responses", json=cut)).json()
    (item,) = answer["output"]
    assert (item["type"], item["status"], answer["status"]) == (
        "reasoning",
        "incomplete",
        "incomplete",
    )


async def test_who_knows_no_thoughts_gets_none(client: AsyncClient) -> None:
    asked = {"query": "Yes", "model_name": "thinker"}
    assert (await client.post("/chat", json=asked)).json()["answer"] == "Yes"
    lines = (await client.post("/chat/stream", json=asked)).text
    assert "see" not in lines
    text = await client.post("/v1/completions", json={"model": "thinker", "prompt": "Yes"})
    assert text.json()["choices"][0]["text"] == "Yes"


GENERATES = "{%- if add_generation_prompt %}<|im_start|>assistant\n"
CONTENT = "{{ message.content or '' }}"
THOUGHT = (
    "{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n"
    "{% endif %}"
)


def test_llama_cpp_tells_thoughts_where_the_template_has_them() -> None:
    assert GENERATES in TEMPLATE
    template = TEMPLATE.replace(GENERATES, f"{GENERATES}<think>\n")
    server = server_of(template.replace(CONTENT, THOUGHT + CONTENT))
    generator = LlamaCppGenerator(server, context_tokens=1024)
    pieces: list[Piece] = []

    def hear(piece: Piece) -> bool:
        pieces.extend([piece] if piece else [])
        return False

    options = GenerationOptions(max_tokens=8, temperature=0)
    said = generator.generate([Message(role="user", content="Hi")], options, on_token=hear)
    generator.close()
    # A model that was trained for it would have ended them; this one goes on until it is cut.
    assert (said.text, said.finish_reason) == ("", "length")
    assert said.thoughts
    assert pieces == [Thought(piece.text) for piece in pieces if isinstance(piece, Thought)]
    assert "".join(p.text for p in pieces if isinstance(p, Thought)) == said.thoughts
    assert said.usage is not None
    assert said.usage.completion_tokens == 8
