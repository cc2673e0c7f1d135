"""The fake engines: deterministic, and failing exactly to order."""

from typing import Any

import numpy as np
import pytest

from app.engines.base import Classifier, Embedder, EmbeddingOptions, EngineRequest, Task
from app.engines.chat_base import Generation, GenerationOptions, Message, OnToken, Usage
from app.engines.fake import FakeFailureError, FakeOptions
from app.engines.fake_chat import FakeGenerator
from app.engines.loader import load_engine
from app.engines.tool_calls import Piece
from app.errors import EngineError

pytestmark = pytest.mark.core


def classifier(**options: object) -> Classifier:
    engine = load_engine(
        EngineRequest(name="x", task=Task.CLASSIFICATION, engine="fake", options=options)
    )
    assert isinstance(engine, Classifier)
    return engine


def hear(tokens: list[str]) -> OnToken:
    def on_token(token: Piece) -> bool:
        assert isinstance(token, str)
        tokens.append(token)
        return False

    return on_token


def test_scores_depend_on_the_text_alone_and_sum_to_one() -> None:
    engine = classifier(delay_ms=1)
    texts = ["a", "b", "a"]
    scores = engine.classify(engine.encode(texts))
    assert scores.dtype == np.float32
    assert np.allclose(scores.sum(axis=1), 1)
    assert np.array_equal(scores[0], scores[2])
    assert not np.array_equal(scores[0], scores[1])
    assert np.array_equal(engine.classify(engine.encode(["b"]))[0], scores[1])
    engine.close()


def test_vectors_have_length_one() -> None:
    engine = load_engine(EngineRequest(name="x", task=Task.EMBEDDING, engine="fake"))
    assert isinstance(engine, Embedder)
    vectors = engine.embed(engine.encode(["a", "b"]))
    assert vectors.shape == (2, engine.dimensions)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("fields", [{"pooling": ("cls",)}, {"normalize": False}])
def test_an_embedder_has_no_pooling_to_set(fields: dict[str, Any]) -> None:
    request = EngineRequest(
        name="x", task=Task.EMBEDDING, engine="fake", embedding=EmbeddingOptions(**fields)
    )
    with pytest.raises(EngineError, match="the fake engine has no pooling"):
        load_engine(request)


def test_an_embedder_says_where_each_token_is() -> None:
    engine = load_engine(EngineRequest(name="x", task=Task.EMBEDDING, engine="fake", max_tokens=2))
    assert isinstance(engine, Embedder)
    assert engine.passage_tokens == 2
    assert engine.offsets("aé🙂") == [(0, 1), *[(1, 2)] * 2, *[(2, 3)] * 4]
    assert engine.offsets("") == []


def test_a_long_text_is_cut_and_says_so() -> None:
    engine = classifier()
    short, long = engine.encode(["x", "x" * 600])
    assert (short.cost, short.is_truncated) == (1, False)
    assert (long.cost, long.is_truncated) == (512, True)


def test_it_fails_on_the_text_and_the_batch_size_that_it_is_told() -> None:
    engine = classifier(fail_on="bad", oom_over=2)
    with pytest.raises(FakeFailureError):
        engine.classify(engine.encode(["good", "so bad"]))
    with pytest.raises(MemoryError):
        engine.classify(engine.encode(["a", "b", "c"]))


def test_chat_echoes_the_last_user_message_word_by_word() -> None:
    tokens: list[str] = []
    chat = FakeGenerator(FakeOptions(delay_ms=0.001), context_tokens=10)
    asked = [
        Message(role="system", content="Be brief."),
        Message(role="user", content="one"),
        Message(role="assistant", content="One."),
        Message(role="user", content="one  two\nthree"),
    ]
    generation = chat.generate(asked, GenerationOptions(), on_token=hear(tokens))
    assert tokens == ["one", " two", " three"]
    usage = Usage(prompt_tokens=7, completion_tokens=3)
    assert generation == Generation(text="one two three", finish_reason="stop", usage=usage)
    assert chat.generate([], GenerationOptions(), on_token=lambda _: False).text == ""
    chat.close()


def test_chat_fails_after_as_many_tokens_as_it_is_told() -> None:
    tokens: list[str] = []
    chat = FakeGenerator(FakeOptions(fail_after=2), context_tokens=10)
    with pytest.raises(FakeFailureError):
        chat.generate(
            [Message(role="user", content="one two three")],
            GenerationOptions(),
            on_token=hear(tokens),
        )
    assert tokens == ["one", " two"]
