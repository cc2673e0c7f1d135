"""Options of sampling, scores of tokens and bare prompts on the packaged chat model."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from smollm import loaded

from app.engines.chat_base import Generation, GenerationOptions, Generator, Message
from app.engines.tool_calls import Piece
from app.errors import ContextLengthExceededError, OptionsRefusedError

ASKED = [Message(role="user", content="Name a colour.")]
THE = "504"  # a token


@pytest.fixture(scope="module")
def engine() -> Iterator[Generator]:
    with loaded() as engine:
        yield engine


def answer(
    engine: Generator, *, prompt: str | None = None, pieces: list[Any] | None = None, **more: Any
) -> Generation:
    """Generate four tokens; they are put on `pieces` too."""
    options = GenerationOptions(**{"temperature": 0.0, "max_tokens": 4, **more})
    messages = ASKED if prompt is None else [Message(role="user", content=prompt)]

    def take(piece: Piece) -> bool:
        if pieces is not None:
            pieces.append(piece)
        return False

    return engine.generate(messages, options, on_token=take)


def test_options_change_the_answer(engine: Generator) -> None:
    plain = answer(engine).text
    assert plain.startswith("The")
    assert not answer(engine, logit_bias={THE: -100.0}).text.startswith("The")
    assert answer(engine, logit_bias={THE: 100.0}).text == "TheTheTheThe"
    strengths: list[dict[str, Any]] = [
        {"presence_penalty": 2.0, "frequency_penalty": 2.0},
        {"repetition_penalty": 5.0},
    ]
    for strong in strengths:
        assert answer(engine, **strong).text != plain
    hot: dict[str, Any] = {"temperature": 2.0, "seed": 1}
    assert answer(engine, **hot).text != plain
    assert answer(engine, **hot, top_k=1).text == plain
    assert answer(engine, **hot, min_p=1.0).text == plain


def test_an_answer_goes_on_behind_its_end_where_that_is_ignored(engine: Generator) -> None:
    ended = answer(engine, max_tokens=48)
    endless = answer(engine, max_tokens=48, ignore_eos=True)
    assert endless.finish_reason == "length"
    assert endless.text.startswith(ended.text.rstrip())


def test_what_the_template_does_not_know_changes_nothing(engine: Generator) -> None:
    plain = answer(engine).text
    assert answer(engine, reasoning_effort="low").text == plain
    assert answer(engine, chat_template_kwargs={"x": [1]}).text == plain
    with pytest.raises(OptionsRefusedError):
        answer(engine, chat_template_kwargs={"messages": []})


def test_scores_are_those_of_the_tokens(engine: Generator) -> None:
    pieces: list[Any] = []
    scored = answer(engine, logprobs=True, top_logprobs=2, pieces=pieces)
    assert "".join(token["token"] for token in scored.scores) == scored.text
    for token in scored.scores:
        best, other = token["top_logprobs"]
        assert best["token"] == token["token"], "the likeliest is taken at temperature 0"
        assert 0 >= token["logprob"] >= other["logprob"] > -math.inf
    assert [t for piece in pieces for t in getattr(piece, "scores", ())] == [*scored.scores]
    assert all(t["top_logprobs"] == [] for t in answer(engine, logprobs=True).scores)


def test_a_bare_prompt_is_gone_on_with_and_needs_no_template(engine: Generator) -> None:
    once = answer(engine, prompt="Once upon a", is_raw=True, logprobs=True, top_logprobs=1)
    assert once.text.startswith(" time")
    assert once.usage is not None
    assert once.usage.prompt_tokens == 3
    assert once.scores[0]["token"] == " time"
    with pytest.raises(ContextLengthExceededError, match="maximum context length is 512"):
        answer(engine, prompt="word " * 600, is_raw=True)
