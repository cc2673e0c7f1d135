"""The fake engines: deterministic, and failing exactly to order."""

import numpy as np
import pytest

from app.engines.base import Classifier, Embedder, EngineRequest, Generator, Message, Task
from app.engines.fake import FakeFailureError
from app.engines.loader import load_engine


def classifier(**options: object) -> Classifier:
    engine = load_engine(
        EngineRequest(name="x", task=Task.CLASSIFICATION, engine="fake", options=options)
    )
    assert isinstance(engine, Classifier)
    return engine


def generator(**options: object) -> Generator:
    engine = load_engine(EngineRequest(name="x", task=Task.CHAT, engine="fake", options=options))
    assert isinstance(engine, Generator)
    return engine


def ask(engine: Generator, text: str, max_tokens: int = 100) -> tuple[list[str], str]:
    heard: list[str] = []

    def hear(token: str) -> bool:
        heard.append(token)
        return "stop!" in token

    said = engine.generate(
        [Message(role="system", content="be brief"), Message(role="user", content=text)],
        max_tokens=max_tokens,
        on_token=hear,
    )
    assert said.text == "".join(heard)
    assert said.completion_tokens == len(heard)
    assert said.prompt_tokens == 2 + len(text.split())
    return heard, said.finish_reason


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
    assert ask(generator(delay_ms=1), "one  two\nthree") == (["one", " two", " three"], "stop")
    assert ask(generator(), "one two three", max_tokens=2) == (["one", " two"], "length")
    assert ask(generator(), "") == ([], "stop")


def test_chat_stops_when_the_listener_says_so_and_fails_when_told() -> None:
    assert ask(generator(), "go stop! on") == (["go", " stop!"], "cancelled")
    with pytest.raises(FakeFailureError):
        ask(generator(fail_after=1), "one two")
    engine = generator()
    assert engine.generate([], max_tokens=1, on_token=lambda _: False).text == ""
    engine.close()
