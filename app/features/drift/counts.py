"""How answered rows are counted: in bins that are the same for all models, and so few numbers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from app.services.prediction_log import AnsweredEntry

IntArray = npt.NDArray[np.int64]
# Of the bins; what was counted in others can't be compared.
EDITION: Final = 1
MAX_LABELS = 64  # of a model; the rest are counted together
OTHERS = "\x1aothers"  # no model's label; U+0000 PostgreSQL could not store
# Probabilities in hundredths; regressions and distances by quarters of a power of ten on each side.
_OUTER = 10.0 ** np.arange(-2, 6, 0.25)
# Each length up to 32 tokens, then eight bins for each doubling, to a quarter of a million.
_LENGTHS = 2.0 ** np.arange(5, 18, 0.125)
# A value belongs to the bin whose lower edge is the last one that isn't above it.
EDGES: Final[Mapping[str, npt.NDArray[np.float64]]] = {
    "score": np.concatenate((-_OUTER[::-1], np.arange(101) / 100, _OUTER[_OUTER > 1])),
    "length": np.concatenate((np.arange(1.0, 32.0), _LENGTHS)),
    # The share of tokens; most texts have none.
    "unknown": np.array([1e-9, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5]),
}


def _zeros() -> dict[str, IntArray]:
    return {kind: np.zeros(len(edges) + 1, dtype=np.int64) for kind, edges in EDGES.items()}


@dataclass(slots=True, kw_only=True)
class Counts:
    """How often each label and each bin was seen in some rows of one version of a model.

    Args:
        rows: that were counted.
        labels: how often each was the answer.
        bins: of scores, lengths and shares of unknown tokens; a row lacks those it doesn't have.

    """

    rows: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    bins: dict[str, IntArray] = field(default_factory=_zeros)

    def add(self, entries: Sequence[AnsweredEntry]) -> None:
        """Count rows."""
        self.rows += len(entries)
        labels = Counter(e.label.replace("\0", "\ufffd") for e in entries if e.label is not None)
        for label, count in labels.items():
            is_known = label in self.labels or len(self.labels) < MAX_LABELS
            self.labels[label if is_known else OTHERS] += count
        self._count("score", [e.score for e in entries if e.score is not None])
        self._count("length", [n for e in entries if (n := length_of(e)) is not None])
        self._count(
            "unknown",
            [
                e.unknown_tokens / e.input_tokens
                for e in entries
                if e.unknown_tokens is not None and e.input_tokens
            ],
        )

    def _count(self, kind: str, values: Sequence[float]) -> None:
        if values:
            places = np.searchsorted(EDGES[kind], values, side="right")
            self.bins[kind] += np.bincount(places, minlength=len(self.bins[kind]))

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON; `read` makes it again."""
        return {
            "edition": EDITION,
            "rows": self.rows,
            "labels": dict(self.labels),
            "bins": {kind: counted.tolist() for kind, counted in self.bins.items()},
        }

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Self | None:
        """Return what `as_dict` wrote; None if it was counted in other bins."""
        if stored.get("edition") != EDITION:
            return None
        return cls(
            rows=stored["rows"],
            labels=Counter(stored["labels"]),
            bins={kind: np.array(stored["bins"][kind], dtype=np.int64) for kind in EDGES},
        )


def length_of(entry: AnsweredEntry) -> int | None:
    """Return the tokens of a row's input; a chat's only its engine knows."""
    return entry.prompt_tokens if entry.input_tokens is None else entry.input_tokens
