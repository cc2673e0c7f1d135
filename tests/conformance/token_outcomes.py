"""Holds token classifiers against transformers' pipeline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from kinds import WINDOW
from tiny_tokens import Reference, found, rows, rows_alone

from app.engines.base import FloatArray, TokenClassifier
from app.engines.scores import softmax
from app.engines.token_windows import TokenRow, TokenText, window_cuts
from app.services.entities import Aggregation


class TokenTrial:
    """The texts of a kind, and what the pipeline answers.

    Args:
        folder: of the model.
        texts: to hold engines against it with.
        items: the same as an engine takes them.

    """

    def __init__(self, folder: Path, texts: Sequence[str], items: Sequence[Any]) -> None:
        self._pipe = Reference(folder, window=WINDOW)
        self._texts = list(texts)
        # Of a text that is longer than the window the pipeline sees the beginning alone, which is
        # what the first window sees too.
        self._counted = [_first_window(item) for item in items]
        self._is_whole = [len(item.windows) == 1 for item in items]
        expected = [self._pipe.scores(text) for text in texts]
        self.expected = [e[:n] for e, n in zip(expected, self._counted, strict=True)]

    def judge(self, engine: TokenClassifier, *, margin: float) -> tuple[float, bool]:
        """Return the largest difference of a score, and whether labels and entities are right."""
        difference, is_right = 0.0, True
        for way in (rows_alone, rows):
            for number, row in enumerate(way(engine, self._texts)):
                expected = self.expected[number]
                scores = softmax(row.logits[: self._counted[number]])
                is_right &= scores.shape == expected.shape and _labels_equal(
                    scores, expected, margin
                )
                if scores.shape == expected.shape and scores.size:
                    difference = max(difference, float(np.abs(scores - expected).max()))
                if self._is_whole[number]:
                    is_right &= self._is_aggregated(self._texts[number], row, engine.labels)
        return difference, is_right

    def _is_aggregated(self, text: str, row: TokenRow, labels: Sequence[str]) -> bool:
        """Say whether entities are those that the pipeline makes of the same logits."""
        for way in Aggregation:
            ours, theirs = found(row, labels, way), self._pipe.aggregated(text, row, way)
            if ours[0] != theirs[0] or not np.allclose(ours[1], theirs[1], atol=1e-5):
                return False
        return True


def _first_window(item: Any) -> int:
    assert isinstance(item, TokenText)
    return window_cuts(item.starts, len(item.offsets))[1]


def _labels_equal(scores: FloatArray, expected: FloatArray, margin: float) -> bool:
    """Say whether the labels are the pipeline's wherever it leaves no doubt."""
    best = np.sort(expected, axis=1)
    is_clear = best[:, -1] - best[:, -2] > margin
    return bool((scores.argmax(axis=1) == expected.argmax(axis=1))[is_clear].all())
