"""OpenAI's and LangChain's own clients run unchanged against the real service and real models."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Annotated, Any

import httpx2
import numpy as np
import openai
import pytest
from converted import CONVERTED
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai.types.chat import ChatCompletionMessageParam
from packaged import MINILM, smollm2
from process import UNMEASURED, service
from pydantic import BaseModel, Field

PROMPT = 'system_prompt = "You are a helpful assistant."'
MODELS = f"""
{smollm2(slots=4, context_tokens=1024, more=PROMPT)}
{MINILM}
[[models]]
name = "narrow"                              # one at a time, and nobody waits
task = "chat"
engine = "fake"
required = true
slots = 1
waiting = 0
fake = {{ delay_ms = 20 }}

[[models]]
name = "breaks"
task = "chat"
engine = "fake"
required = true
fake = {{ fail_after = 2 }}
"""
ASKED: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]
TEXTS = ["A cat sat on the mat.", "A kitten rested on the rug.", "Interest rates rose again."]


class City(BaseModel):
    """A city."""

    name: Annotated[str, Field(max_length=20)]
    is_capital: bool


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("service")
    # Threads of llama.cpp that wait for each other spin on the cores that other tests compute on.
    given: dict[str, Any] = {
        "model_cache_dir": CONVERTED,
        "log_level": "warning",
        "engine_threads": 1,
    }
    with service(folder, MODELS, **given, **UNMEASURED) as running:
        running.wait_ready()
        yield f"{running.url}/v1"


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, **more: Any) -> Any:
    fields = {"model": "smollm2", "messages": ASKED, "max_tokens": 24, "temperature": 0, **more}
    return client.chat.completions.create(**fields)


def test_chat_answers_a_plain_question(client: openai.OpenAI) -> None:
    answer = ask(client)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason in {"stop", "length"}
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.id.startswith("chatcmpl-")
    assert answer._request_id


def test_a_stream_says_the_same_and_its_usage_last(client: openai.OpenAI) -> None:
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    assert "".join(pieces) == whole.choices[0].message.content
    assert sum(map(bool, pieces)) > 3, "token by token"
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 0, "asked a moment ago"


async def test_the_async_client_chats_and_streams(async_client: openai.AsyncOpenAI) -> None:
    fields: dict[str, Any] = {"model": "smollm2", "max_tokens": 24, "temperature": 0}
    create = async_client.chat.completions.create
    whole = await create(messages=ASKED, **fields)
    stream = await create(messages=ASKED, stream=True, **fields)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == whole.choices[0].message.content


def test_the_helper_of_streams_puts_the_answer_together(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "smollm2", "max_tokens": 24, "temperature": 0}
    with client.chat.completions.stream(messages=ASKED, **fields) as stream:
        final = stream.get_final_completion()
    assert "Paris" in (final.choices[0].message.content or "")


def test_the_same_seed_gives_the_same_answer_and_another_another(client: openai.OpenAI) -> None:
    story: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Tell me a story."}]

    def told(seed: int) -> str:
        answer = ask(client, messages=story, temperature=1.5, seed=seed, max_tokens=16)
        return str(answer.choices[0].message.content)

    first = told(7)
    assert told(7) == first
    assert told(8) != first
    assert told(2**32 - 1) == told(2**32 - 1), "which llama.cpp takes for: a random one"


def test_a_stop_text_ends_the_answer_before_it(client: openai.OpenAI) -> None:
    whole = ask(client).choices[0].message.content
    cut = ask(client, stop=["Paris", "never"]).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.message.content == whole[: whole.index("Paris")]


def test_a_json_schema_s_answer_parses(client: openai.OpenAI) -> None:
    schema = {**City.model_json_schema(), "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    answer = ask(client, response_format=wanted, max_tokens=80)
    City.model_validate_json(answer.choices[0].message.content)
    parsed = client.chat.completions.parse(
        model="smollm2", messages=ASKED, response_format=City, max_tokens=80, temperature=0
    )
    assert isinstance(parsed.choices[0].message.parsed, City)


def test_a_tool_is_called_parsed_and_streamed(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {
        "model": "smollm2",
        "messages": ASKED,
        "temperature": 0,
        "tools": [openai.pydantic_function_tool(City)],
        "tool_choice": {"type": "function", "function": {"name": "City"}},
    }
    parsed = client.chat.completions.parse(**fields).choices[0]
    assert parsed.finish_reason == "tool_calls"
    (call,) = parsed.message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, City)
    with client.chat.completions.stream(**fields) as stream:
        kinds = [event.type for event in stream]
        (streamed,) = stream.get_final_completion().choices[0].message.tool_calls or []
    assert kinds.count("tool_calls.function.arguments.delta") > 3, "piece by piece"
    assert streamed.function.parsed_arguments == call.function.parsed_arguments
    result = {"role": "tool", "tool_call_id": call.id, "content": "It is."}
    history = [*ASKED, parsed.message, result]
    assert ask(client, messages=history, tools=fields["tools"], tool_choice="none")


def test_a_json_object_is_one(client: openai.OpenAI) -> None:
    asked = [{"role": "user", "content": 'Answer with the JSON {"city": "Paris"}.'}]
    wanted = {"type": "json_object"}
    answer = ask(client, messages=asked, response_format=wanted, max_tokens=200)
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_langchain_invokes_streams_and_structures(url: str) -> None:
    model = ChatOpenAI(
        base_url=url, api_key=lambda: "none", model="smollm2", temperature=0, max_retries=0
    )
    whole = model.invoke("What is the capital of France?", max_tokens=24)
    assert "Paris" in whole.text
    assert whole.usage_metadata is not None
    pieces = list(model.stream("What is the capital of France?", max_tokens=24, stream_usage=True))
    assert "".join(piece.text for piece in pieces) == whole.text
    (usage,) = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert usage["total_tokens"] == whole.usage_metadata["total_tokens"]
    structured = model.with_structured_output(City, method="json_schema")
    assert isinstance(structured.invoke("Paris is the capital of France.", max_tokens=80), City)


def test_langchain_binds_tools(url: str) -> None:
    model = ChatOpenAI(
        base_url=url, api_key=lambda: "none", model="smollm2", temperature=0, max_retries=0
    )
    (call,) = model.bind_tools([City], tool_choice="any").invoke("Paris").tool_calls
    assert City.model_validate(call["args"])
    structured = model.with_structured_output(City, method="function_calling")
    assert isinstance(structured.invoke("Paris is the capital of France."), City)


def test_embeddings_are_near_for_texts_of_like_meaning(client: openai.OpenAI) -> None:
    embeddings = client.embeddings.create(model="minilm", input=TEXTS)
    cat, kitten, rates = np.array([item.embedding for item in embeddings.data])
    assert cat @ kitten > 0.5
    assert cat @ rates < 0.2
    assert embeddings.usage.prompt_tokens > len(" ".join(TEXTS).split())


def test_floats_and_base64_are_the_same_vectors(client: openai.OpenAI) -> None:
    formats: tuple[Any, Any] = ("float", "base64")
    plain, packed = (
        client.embeddings.create(model="minilm", input=TEXTS[0], encoding_format=form)
        for form in formats
    )
    unpacked = client.embeddings.create(model="minilm", input=TEXTS[0])  # base64 by itself
    assert isinstance(packed.data[0].embedding, str)
    assert np.allclose(plain.data[0].embedding, unpacked.data[0].embedding, atol=1e-6)


async def test_langchain_embeds_sync_and_async(url: str) -> None:
    async with httpx2.AsyncClient() as closed_at_the_end:
        embedder = OpenAIEmbeddings(
            openai_api_base=url,
            openai_api_key=lambda: "none",
            model="minilm",
            check_embedding_ctx_length=False,
            http_async_client=closed_at_the_end,
        )
        vectors = embedder.embed_documents(TEXTS)
        assert np.shape(vectors) == (3, 384)
        assert np.allclose(await embedder.aembed_query(TEXTS[0]), vectors[0], atol=1e-3)


def test_models_are_listed_and_shown(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert sorted(names) == ["breaks", "minilm", "narrow", "smollm2"]
    assert client.models.retrieve("smollm2").id == "smollm2"


def test_errors_become_the_client_s_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(client, model="gpt-4o")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, functions=[{"name": "f"}])
    assert (refused.value.code, refused.value.param) == ("unsupported_field", "functions")
    with pytest.raises(openai.BadRequestError) as long:
        ask(client, messages=[{"role": "user", "content": "word " * 2000}], stream=True)
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "messages")
    pattern = {"type": "string", "pattern": "^((a{0,20}x?){0,20}y?){0,20}$"}
    impossible = {"type": "string", "minLength": 5, "maxLength": 2}
    empty = {"type": "object", "properties": {"a": impossible}}
    refusals = (
        (pattern, "`pattern` in the JSON schema at `#`"),
        (empty, "`minLength` in the JSON schema at `#/properties/a`"),
    )
    for schema, message in refusals:
        costly = {"name": "x", "schema": schema}
        with pytest.raises(openai.BadRequestError) as stuck:
            ask(client, response_format={"type": "json_schema", "json_schema": costly})
        assert (stuck.value.code, stuck.value.param) == ("options_refused", "response_format")
        assert message in stuck.value.message
    boolean = {"name": "x", "schema": {"type": "boolean"}}
    with pytest.raises(openai.BadRequestError) as cut:
        ask(client, response_format={"type": "json_schema", "json_schema": boolean}, stop=["a"])
    assert (cut.value.code, cut.value.param) == ("options_refused", "stop")
    with pytest.raises(openai.NotFoundError):
        client.moderations.create(input="x")


def test_an_error_in_mid_stream_is_raised_after_the_tokens(client: openai.OpenAI) -> None:
    texts: list[str] = []
    with pytest.raises(openai.APIError) as broken:
        texts.extend(
            chunk.choices[0].delta.content
            for chunk in ask(
                client, model="breaks", messages=[{"role": "user", "content": "a b c"}], stream=True
            )
        )
    assert broken.value.code == "inference_failed"


def test_a_full_model_is_503_with_retry_after_and_leaving_makes_room(
    client: openai.OpenAI,
) -> None:
    long = [{"role": "user", "content": "word " * 500}]
    short = [{"role": "user", "content": "word"}]
    with closing(ask(client, model="narrow", messages=long, max_tokens=None, stream=True)) as held:
        next(iter(held))
        with pytest.raises(openai.InternalServerError) as full:
            ask(client, model="narrow", messages=short)
    assert full.value.status_code == 503
    assert full.value.code == "overloaded"
    assert int(full.value.response.headers["retry-after"]) > 0
    # The client waits as long as it was told to, and then there is room.
    patient = client.with_options(max_retries=5)
    assert ask(patient, model="narrow", messages=short).choices[0].message.content == "word"
