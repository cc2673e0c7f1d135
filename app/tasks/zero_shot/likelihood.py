"""The labels of one text with their likelihoods, in order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.engines.base import FloatArray


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


def labelled(labels: Sequence[str], scores: FloatArray, *, is_truncated: bool) -> Labelled:
    """Return labels with their likelihoods, the best first; equals in the order of the request."""
    order = np.argsort(-scores, kind="stable")
    pairs = tuple((labels[index], float(scores[index])) for index in order)
    return Labelled(scores=pairs, is_truncated=is_truncated)
