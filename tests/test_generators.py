"""What every generator of this process promises: one suite, run on the fake and on llama.cpp."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from smollm import gguf

from app.engines.base import EngineRequest, Task
from app.engines.chat_base import ChatOptions, GenerationOptions, Generator, Message
from app.engines.fake import FakeOptions
from app.engines.fake_chat import FakeGenerator
from app.engines.llama_cpp import loading as llama_cpp
from app.engines.llama_cpp.generator import LlamaCppGenerator
from app.engines.llama_cpp.server import OPENMP, load_openmp
from app.engines.tool_calls import Piece
from app.errors import (
    ContextLengthExceededError,
    EngineError,
    InferenceFailedError,
    OptionsRefusedError,
)

CONTEXT_TOKENS = 256
SLOTS = 4
COUNT = "Count from one to fifty in words: one, two, three, four, five, six, seven, eight, nine"


def request(**given: Any) -> EngineRequest:
    chat = ChatOptions(slots=SLOTS, context_tokens=CONTEXT_TOKENS, cores=1)
    known = EngineRequest(name="x", task=Task.CHAT, engine="llama_cpp", folder=gguf(), chat=chat)
    return replace(known, **given)


@pytest.fixture(scope="module")
def smollm() -> Iterator[Generator]:
    made = llama_cpp.load(request())
    yield made
    made.close()


@pytest.fixture(params=["fake", "llama_cpp"])
def generator(request: pytest.FixtureRequest) -> Any:
    if request.param == "fake":
        return FakeGenerator(FakeOptions(), context_tokens=CONTEXT_TOKENS)
    return request.getfixturevalue("smollm")


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def ask(engine: Generator, text: str, **options: Any) -> tuple[list[str], Any]:
    tokens: list[str] = []
    given = {"max_tokens": 12, "temperature": 0.0} | options

    def hear(token: Piece) -> bool:
        assert isinstance(token, str)
        tokens.append(token)
        return False

    generation = engine.generate(user(text), GenerationOptions(**given), on_token=hear)
    return [token for token in tokens if token], generation


def test_the_pieces_are_the_text_and_the_usage_counts_them(generator: Generator) -> None:
    pieces, generation = ask(generator, COUNT)
    assert generation.text == "".join(pieces)
    assert generation.text
    assert generation.usage.prompt_tokens > 0
    assert 0 < generation.usage.completion_tokens <= 12
    assert (
        generation.usage.total_tokens
        == generation.usage.prompt_tokens + generation.usage.completion_tokens
    )


def test_max_tokens_ends_it_with_length(generator: Generator) -> None:
    pieces, generation = ask(generator, COUNT, max_tokens=2)
    assert generation.finish_reason == "length"
    assert generation.usage.completion_tokens == 2
    assert 0 < len(pieces) <= 2


def test_it_stops_with_the_token_at_which_it_is_told_to(generator: Generator) -> None:
    tokens: list[Piece] = []

    def hear(token: Piece) -> bool:
        tokens.append(token)
        return len([t for t in tokens if t]) == 3

    options = GenerationOptions(max_tokens=100, temperature=0.0)
    generation = generator.generate(user(COUNT), options, on_token=hear)
    assert generation.finish_reason == "cancelled"
    assert len([t for t in tokens if t]) == 3
    assert generation.usage is not None
    assert generation.usage.completion_tokens == 3


def test_a_prompt_over_the_context_says_both_numbers(generator: Generator) -> None:
    with pytest.raises(ContextLengthExceededError) as failure:
        ask(generator, "word " * 2 * CONTEXT_TOKENS)
    assert failure.value.extensions["context_tokens"] == CONTEXT_TOKENS
    assert failure.value.extensions["prompt_tokens"] > CONTEXT_TOKENS


def test_generations_side_by_side_dont_mix(generator: Generator) -> None:
    texts = [f"{COUNT}, and say the number {n} again and again" for n in range(SLOTS)]
    alone = [ask(generator, text)[1].text for text in texts]
    start = threading.Barrier(SLOTS, timeout=10)

    def run(text: str) -> str:
        start.wait()
        generation: str = ask(generator, text)[1].text
        return generation

    with ThreadPoolExecutor(SLOTS) as threads:
        together = list(threads.map(run, texts))
    # Sums in another order round differently: the words begin alike, and are never another's.
    for number, (one, other) in enumerate(zip(alone, together, strict=True)):
        assert one.lower().split()[:2] == other.lower().split()[:2], number


def test_the_same_seed_gives_the_same_answer(smollm: Generator) -> None:
    hot = {"temperature": 1.5, "max_tokens": 16}
    first = ask(smollm, "Tell me a story.", seed=7, **hot)[1].text
    assert ask(smollm, "Tell me a story.", seed=7, **hot)[1].text == first
    assert ask(smollm, "Tell me a story.", seed=8, **hot)[1].text != first


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 5, "maxLength": 2},  # would be looked for for ever
        {"type": "object", "properties": {"a": {"type": "array", "minItems": 2, "maxItems": 1}}},
        {"type": "integer", "minimum": -(10**20)},
        {"type": "string", "minLength": -1},
    ],
)
def test_a_schema_that_cant_be_followed_is_refused_and_stops_nobody(
    smollm: Generator, schema: Any
) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(OptionsRefusedError):
        ask(smollm, "Say hi.", response_format=response_format)
    assert ask(smollm, "Say hi.")[1].text


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(smollm: Generator) -> None:
    complete = ask(smollm, COUNT, max_tokens=24)[1].text
    stop = complete.split()[2]
    pieces, generation = ask(smollm, COUNT, max_tokens=24, stop=(stop,))
    assert generation.finish_reason == "stop"
    assert stop not in generation.text
    assert complete.startswith(generation.text)
    assert "".join(pieces) == generation.text


def test_a_repeated_prompt_is_found_in_the_prefix_cache(smollm: Generator) -> None:
    ask(smollm, "The prefix cache keeps what this prompt was made of, word by word.")
    generation = ask(smollm, "The prefix cache keeps what this prompt was made of, word by word.")[
        1
    ]
    assert generation.usage.cached_tokens > generation.usage.prompt_tokens // 2


def test_one_who_leaves_while_the_prompt_is_read_is_seen(smollm: Generator) -> None:
    asked: list[Piece] = []

    def leave(token: Piece) -> bool:
        asked.append(token)
        return True

    options = GenerationOptions(max_tokens=50, temperature=0.0)
    generation = smollm.generate(user("A prompt of some length. " * 35), options, on_token=leave)
    assert generation.finish_reason == "cancelled"
    assert asked == [""], "told before there was a token, and never asked again"
    assert ask(smollm, COUNT, max_tokens=2)[1].finish_reason == "length"


def test_json_schemas_are_obeyed_and_bad_ones_refused(smollm: Generator) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    }
    response_format = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    generation = ask(
        smollm, "Name a city as JSON.", max_tokens=60, response_format=response_format
    )[1]
    assert generation.text.lstrip().startswith('{"city":') or '"city"' in generation.text
    bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    with pytest.raises(OptionsRefusedError):
        ask(smollm, "Name a city as JSON.", response_format=bad)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"folder": Path("model.bin")}, "needs a source that is a .gguf file"),
        ({"folder": None}, "needs a source that is a .gguf file"),
        ({"task": Task.EMBEDDING}, "loads chat models only"),
        ({"chat": None}, "loads chat models only"),
    ],
)
def test_what_isnt_a_chat_model_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        llama_cpp.load(request(**given))


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(EngineError, match=r"broken\.gguf: its header is cut off or damaged"):
        llama_cpp.load(replace(request(), folder=broken))


@pytest.mark.parametrize("bad", ["garbage", "zeros"])
def test_a_file_whose_weights_are_damaged_is_refused(tmp_path: Path, bad: str) -> None:
    good = Path(str(request().folder)).read_bytes()
    half = len(good) // 2
    rest = bytes(half) if bad == "zeros" else random.Random(1).randbytes(half)  # noqa: S311  # bytes, no secret
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(good[:-half] + rest)
    with pytest.raises(EngineError, match=r"broken\.gguf: its weights are damaged"):
        llama_cpp.load(replace(request(), folder=broken))


class Server:
    """Says what it is told to, as xllamacpp's server would."""

    def __init__(self, *chunks: dict[str, Any]) -> None:
        self._chunks = chunks

    def handle_chat_completions(self, _body: Any, callback: Any) -> None:
        for chunk in self._chunks:
            callback(chunk)


@pytest.mark.parametrize(
    "chunks",
    [
        (),
        ({"error": {"code": 500, "message": "secret", "type": "server_error"}},),
        ({"choices": [{"delta": {"content": "a"}, "finish_reason": None}]},),
    ],
)
def test_a_loop_that_ends_without_an_answer_is_a_failure(chunks: Any) -> None:
    engine = LlamaCppGenerator(Server(*chunks), context_tokens=8)
    with pytest.raises(InferenceFailedError) as failure:
        ask(engine, "a")
    assert "secret" not in str(failure.value)


def test_what_the_loop_calls_a_bad_request_are_refused_options() -> None:
    refused = {"error": {"code": 400, "message": "secret", "type": "invalid_request_error"}}
    engine = LlamaCppGenerator(Server(refused), context_tokens=8)
    with pytest.raises(OptionsRefusedError) as failure:
        ask(engine, "a")
    assert "secret" not in str(failure.value)


def test_where_the_system_has_no_openmp_the_copy_of_torch_is_loaded() -> None:
    asked: list[str] = []

    def open_library(name: str, **_: Any) -> None:
        asked.append(name)
        if name == OPENMP:
            raise OSError

    load_openmp(open_library)
    assert asked[0] == OPENMP
    assert Path(asked[1]).is_file()
    assert "torch" in asked[1]
