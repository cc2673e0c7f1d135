"""Tiny GGUF files of each kind that llama.cpp serves, held against torch on the same weights."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_files import write_bert, write_qwen3
from tiny import TEXTS, alone, seeded, together
from tiny_gguf import (
    BERT,
    PIECES,
    TEMPLATE,
    WINDOW,
    bert,
    byte_pairs,
    qwen,
    word_pieces,
    write_ranker,
)
from tokenizers import Tokenizer

from app.engines.base import Embedder, EmbeddingOptions, EngineRequest, FloatArray, Pair, Task
from app.engines.llama_cpp import text_loading
from app.engines.loader import EngineTable
from app.errors import EngineError

# Of numbers around 1. llama.cpp keeps keys and values, and a table of GELU, in half precision.
MOST = 5e-3
MORE_TEXTS = (*TEXTS[:3], *TEXTS[4:], "Café plays playing xyzzy", "我喜欢 film", "film [SEP] cat")


def request(file: Path, task: Task = Task.EMBEDDING, **given: Any) -> EngineRequest:
    return EngineRequest(name="x", task=task, engine="llama_cpp", folder=file, **given)


POOLED: dict[str, Callable[[Any], Any]] = {
    "mean": lambda hidden: hidden.mean(0),
    "cls": lambda hidden: hidden[0],
    "last": lambda hidden: hidden[-1],
}


def vectors(model: Any, tokenizer: Tokenizer, texts: Sequence[str], pooling: str) -> FloatArray:
    """Return what torch makes of texts, each alone; of length 1."""
    rows = []
    for text in texts:
        with torch.inference_mode():
            ids = torch.tensor([tokenizer.encode(text).ids])
            row = POOLED[pooling](model(ids).last_hidden_state[0])
        rows.append((row / row.norm()).numpy())
    return np.stack(rows)


@pytest.fixture(scope="module", params=["bert", "qwen3"])
def family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Any, Tokenizer, Path]:
    """Return an architecture's name, model, tokeniser and folder."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "bert":
        return "bert", bert(), word_pieces(), folder
    tokenizer = byte_pairs(folder)
    return "qwen3", qwen(tokenizer), tokenizer, folder


def written(family: tuple[str, Any, Tokenizer, Path], pooling: str) -> Path:
    name, model, _, folder = family
    file = folder / f"{pooling or 'none'}.gguf"
    if name == "bert":
        return write_bert(file, model, PIECES, pooling=pooling)
    return write_qwen3(file, model, folder / "tokenizer.json", pooling=pooling)


@pytest.mark.parametrize("pooling", POOLED)
def test_an_embedder_answers_as_torch_alone_and_in_a_batch(
    family: tuple[str, Any, Tokenizer, Path], pooling: str
) -> None:
    _, model, tokenizer, _ = family
    engine = text_loading.load(request(written(family, pooling)))
    assert isinstance(engine, Embedder)
    with closing(engine):
        encoded = engine.encode(MORE_TEXTS)
        expected = [tokenizer.encode(text) for text in MORE_TEXTS]
        assert [list(item.token_ids) for item in encoded] == [e.ids for e in expected]
        assert [item.is_truncated for item in encoded] == [bool(e.overflowing) for e in expected]
        right = vectors(model, tokenizer, MORE_TEXTS, pooling)
        assert np.ptp(right, axis=0).max() > 0.1, "the texts have to differ"
        for rows in (alone(engine, MORE_TEXTS), together(engine, MORE_TEXTS)):
            np.testing.assert_allclose(rows, right, rtol=0, atol=MOST)
        for text in MORE_TEXTS:
            places = engine.offsets(text)
            whole = Tokenizer.from_str(tokenizer.to_str())
            whole.no_truncation()
            assert len(places) == len(whole.encode(text, add_special_tokens=False).ids)


def test_the_entry_says_how_a_file_without_a_pooling_is_pooled(
    family: tuple[str, Any, Tokenizer, Path],
) -> None:
    _, model, tokenizer, _ = family
    file = written(family, "")
    with pytest.raises(EngineError, match=r'says no pooling, as chat models do; .*"lasttoken"'):
        text_loading.load(request(file))
    options = EmbeddingOptions(pooling=("lasttoken",), normalize=False)
    with closing(text_loading.load(request(file, embedding=options))) as engine:
        assert isinstance(engine, Embedder)
        rows = together(engine, MORE_TEXTS[:3])
        sizes = np.linalg.norm(rows, axis=1, keepdims=True)
        assert (abs(sizes - 1) > MOST).all(), "of a length of their own"
        right = vectors(model, tokenizer, MORE_TEXTS[:3], "last")
        np.testing.assert_allclose(rows / sizes, right, rtol=0, atol=MOST)
        assert engine.vector_rules.edition
    for pooling in (("max",), ("mean", "cls")):
        wrong = request(file, embedding=EmbeddingOptions(pooling=pooling))
        with pytest.raises(EngineError, match=r"llama\.cpp has one of mean, cls, lasttoken"):
            text_loading.load(wrong)


PAIRS: tuple[Pair, ...] = (
    ("good film", "the cat is long"),
    ("good film", "a dog"),
    ("the cat", "very good !"),
    ("the {document} is", "Café"),
)


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Qwen3 reranker, and what torch answers a pair of texts."""
    file, model, tokenizer, head = write_ranker(tmp_path_factory.mktemp("ranker") / "x.gguf")

    def score(pair: Pair) -> float:
        query = pair[0].replace("{document}", "{ document}")
        prompt = TEMPLATE.replace("{query}", query).replace("{document}", pair[1])
        ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False).ids])
        with torch.inference_mode():
            logits = head @ model(ids).last_hidden_state[0, -1]
        return float(logits.softmax(0)[0])

    engine = text_loading.load(request(file, Task.RANKING))
    with closing(engine):
        yield file, engine, score


def test_a_reranker_scores_pairs_as_torch_alone_and_in_a_batch(ranker: Any) -> None:
    _, engine, score = ranker
    right = np.array([[score(pair)] for pair in PAIRS])
    assert np.ptp(right) > 0.1, "the pairs have to differ"
    for rows in (alone(engine, PAIRS), together(engine, PAIRS)):
        np.testing.assert_allclose(rows, right, rtol=0, atol=MOST)


def test_a_pair_that_is_too_long_loses_the_end_of_the_longer_text(ranker: Any) -> None:
    _, engine, score = ranker
    (item,) = engine.encode([("good film", "very good film . " * 20)])
    assert item.is_truncated
    assert WINDOW - 3 <= item.cost <= WINDOW
    query, text = item.pair
    assert query == "good film"
    assert ("very good film . " * 20).startswith(text)
    np.testing.assert_allclose(engine.classify([item])[0, 0], score((query, text)), atol=MOST)


def test_what_isnt_for_the_task_is_refused_with_its_own(
    tmp_path: Path, ranker: Any, family: tuple[str, Any, Tokenizer, Path]
) -> None:
    embedder = written(family, "last")
    with pytest.raises(EngineError, match=r"last\.gguf: is no reranker"):
        text_loading.load(request(embedder, Task.RANKING))
    with pytest.raises(EngineError, match=r'is a reranker; its entry\'s task is "text-ranking"'):
        text_loading.load(request(ranker[0]))
    with pytest.raises(EngineError, match="takes no adapter"):
        text_loading.load(request(embedder, adapter=tmp_path))
    with pytest.raises(EngineError, match="5 tokens leave no room"):
        text_loading.load(request(ranker[0], Task.RANKING, max_tokens=5))
    with pytest.raises(EngineError, match="doesn't do text-classification"):
        EngineTable().load(replace(request(embedder, Task.CLASSIFICATION), engine="auto"))


@pytest.mark.parametrize("types", [1, 2])
def test_a_cross_encoder_of_berts_is_refused_since_its_pairs_would_be_others(
    tmp_path: Path, types: int
) -> None:
    fields = BERT | {"num_labels": 1, "type_vocab_size": types}
    model = seeded("BertForSequenceClassification", "BertConfig", **fields)
    file = write_bert(tmp_path / "minilm.gguf", model, PIECES, pooling="rank")
    with pytest.raises(EngineError, match=r"minilm\.gguf: has a vocabulary of WordPiece"):
        text_loading.load(request(file, Task.RANKING))
