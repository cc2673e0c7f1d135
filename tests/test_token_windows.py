"""Windows over long texts, and entities of tokens, held against transformers' own methods."""

import warnings
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny import word_tokenizer
from tiny_tokens import found

from app.batching.tokenising import estimate_tokens
from app.engines.scores import softmax
from app.engines.token_windows import (
    TokenEncoder,
    TokenRow,
    rows_of,
    window_cuts,
    window_starts,
    windows_of,
)
from app.engines.tokenizer import TextRules
from app.services.entities import Aggregation, spans_of

pytestmark = pytest.mark.core

WINDOW, ROOM = 10, 8  # of a window and, without [CLS] and [SEP], of a text in it
SCHEMES = {
    "IOB2": ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
    "IOB1": ("O", "I-PER", "B-PER", "I-LOC"),
    "BIOES": ("O", "B-PER", "I-PER", "E-PER", "S-PER"),
    "BILOU": ("O", "B-LOC", "I-LOC", "L-LOC", "U-LOC"),
    "without prefixes": ("NOUN", "VERB", "O"),
    "odd names": ("B-O", "I-A-B", "B-A-B", "A-B", "B-", "I-O"),
}


def encoder(**rules: Any) -> TokenEncoder:
    backend = word_tokenizer().backend_tokenizer
    return TokenEncoder(backend, TextRules(window=WINDOW, unknown_id=1, **rules))


def test_a_text_that_fits_is_one_window_of_its_own_tokens() -> None:
    (item,) = encoder().encode(["the cat was good"])
    assert (len(item.windows), item.is_truncated) == (1, False)
    assert list(item.token_ids) == list(item.windows[0].token_ids)
    assert item.token_ids[0] == 2
    assert item.token_ids[-1] == 3
    assert item.offsets.tolist() == [[0, 3], [4, 7], [8, 11], [12, 16]]


@pytest.mark.parametrize("tokens", [0, 1, ROOM, ROOM + 1, 13, 14, 15, 29, 1000])
@pytest.mark.parametrize("room", [ROOM, 5, 2, 1])
def test_every_token_is_answered_once_by_the_window_that_shows_most_around_it(
    tokens: int, room: int
) -> None:
    starts = window_starts(tokens, room)
    cuts = window_cuts(starts, tokens)
    size = min(room, tokens)
    assert starts[-1] + size == tokens
    assert (cuts[0], cuts[-1], len(cuts)) == (0, tokens, len(starts) + 1)

    def room_around(token: int, start: int) -> int:
        """Count what is seen on the nearer side; an end of the text hides nothing."""
        before = token - start if start else tokens
        behind = start + size - 1 - token if start + size < tokens else tokens
        return min(before, behind)

    for start, (begin, end) in zip(starts, pairwise(cuts), strict=True):
        assert start <= begin <= end <= start + size
        for token in range(begin, end):
            others = (s for s in starts if s <= token < s + size)
            assert room_around(token, start) == max(room_around(token, s) for s in others)
    assert all(b - a <= room - room // 4 for a, b in pairwise(starts))


def test_windows_hold_the_whole_text_and_their_answers_are_put_together() -> None:
    text = "the cat was good and bad , " * 5
    given = encoder()
    whole = given._tokenizer.encode(text)
    (item,) = given.encode([text])
    assert len(item.windows) > 3
    assert all(len(w.token_ids) == WINDOW for w in item.windows)
    assert item.cost == sum(w.cost for w in item.windows)
    assert item.offsets.tolist() == [list(place) for place in whole.offsets[1:-1]]
    # Each window says its tokens' ids.
    said = [np.array(w.token_ids, np.float32)[:, None] for w in windows_of([item])]
    (row,) = rows_of([item], said)
    assert row.logits[:, 0].astype(int).tolist() == whole.ids[1:-1]


def test_a_text_without_words_has_no_row_of_tokens() -> None:
    (blank,) = encoder().encode([" \n "])
    assert (blank.cost, blank.is_empty) == (2, False)
    (row,) = rows_of([blank], [np.ones((2, 3), np.float32)])
    assert row.logits.shape == (0, 3)
    assert list(spans_of(row, "OAB", Aggregation.SIMPLE)) == []


def test_the_cost_of_a_long_text_isn_t_bounded_by_the_window() -> None:
    assert estimate_tokens("x" * 4000, max_tokens=512) == 512
    assert 1300 < estimate_tokens("x" * 4000, max_tokens=None) < 1400


def theirs(row: TokenRow, labels: tuple[str, ...], way: Aggregation) -> tuple[Any, Any]:
    """Return what transformers' methods make of a row."""
    from transformers.pipelines import token_classification as library  # takes seconds

    pipe: Any = object.__new__(library.TokenClassificationPipeline)
    pipe.tokenizer = SimpleNamespace(convert_tokens_to_string="".join)
    pipe.model = SimpleNamespace(config=SimpleNamespace(id2label=dict(enumerate(labels))))
    tokens = [
        {"word": "", "scores": scores, "start": start, "end": end, "index": index,
         "is_subword": is_subword}
        for index, (scores, (start, end), is_subword) in enumerate(
            zip(softmax(row.logits), row.offsets.tolist(), row.is_subword.tolist(), strict=True)
        )
    ]  # fmt: skip
    entities = pipe.aggregate(tokens, library.AggregationStrategy(way.value))
    names = [e.get("entity_group", e.get("entity")) for e in entities]
    kept = [(n, e) for n, e in zip(names, entities, strict=True) if n != "O"]
    return [(n, e["start"], e["end"]) for n, e in kept], [float(e["score"]) for _, e in kept]


@pytest.mark.parametrize("labels", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("way", Aggregation)
def test_tokens_become_the_entities_that_transformers_makes_of_them(
    labels: tuple[str, ...], way: Aggregation
) -> None:
    random = np.random.default_rng(len(labels))
    for _ in range(100):
        count = int(random.integers(1, 12))
        offsets = np.sort(random.integers(0, 40, (count, 2)), axis=1)
        # Few different numbers, so that some are equal.
        logits = random.integers(-2, 3, (count, len(labels))).astype(np.float32)
        row = TokenRow(logits, offsets, random.random(count) < 0.4)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            places, scores = found(row, labels, way)
        expected, expected_scores = theirs(row, labels, way)
        assert places == expected
        np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
