"""Turns an engine's scores into labels, the best first."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

from app.batching.base import Scheduler
from app.engines.base import Classifier, FloatArray, Task
from app.models.registry import TaskKey

CLASSIFIERS = TaskKey[Scheduler[Classifier]](Task.CLASSIFICATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """Labels of one text with their scores, best first."""

    scores: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """The best label."""
        return self.scores[0][0]

    @property
    def score(self) -> float:
        """The best label's score."""
        return self.scores[0][1]

    @classmethod
    def of(cls, scores: FloatArray, labels: Sequence[str]) -> "Classification":
        """Return the labels of a row, (labels,) float32."""
        pairs = zip(labels, scores.tolist(), strict=True)
        # Labels are few: NumPy's sorting takes several times as long for them.
        return cls(scores=tuple(sorted(pairs, key=itemgetter(1), reverse=True)))
