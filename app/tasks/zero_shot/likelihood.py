"""Turns logits of entailment into likelihoods of labels, as transformers' pipeline does."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.engines.base import FloatArray
from app.engines.scores import softmax


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """The labels of one text with their likelihoods, the best first."""

    scores: tuple[tuple[str, float], ...]
    is_truncated: bool

    @property
    def label(self) -> str:
        """The best label."""
        return self.scores[0][0]

    @property
    def score(self) -> float:
        """Its likelihood."""
        return self.scores[0][1]


def likelihoods(logits: FloatArray, entailment: int, *, is_multi_label: bool) -> FloatArray:
    """Return how likely each label is, (labels,) float32.

    Args:
        logits: of the text with each label's hypothesis, (labels, classes) float32.
        entailment: the class that says that the hypothesis follows.
        is_multi_label: several labels may be right: each is then as likely as its entailment
            against its contradiction. Otherwise all together are as likely as 1. A single label is
            always on its own.

    """
    if is_multi_label or len(logits) == 1:
        # The pipeline takes the first class for the contradiction, or the last where the first
        # one is the entailment.
        contradiction = -1 if entailment == 0 else 0
        either: FloatArray = softmax(logits[:, [contradiction, entailment]])[:, 1]
        return either
    together: FloatArray = softmax(logits[None, :, entailment])[0]
    return together


def labelled(labels: Sequence[str], scores: FloatArray, *, is_truncated: bool) -> Labelled:
    """Return labels with their likelihoods, the best first; equals in the order of the request."""
    order = np.argsort(-scores, kind="stable")
    pairs = tuple((labels[index], float(scores[index])) for index in order)
    return Labelled(scores=pairs, is_truncated=is_truncated)
