"""What a window says against its reference: a distance for each kind, and whether it is a drift."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from app.features.drift.counts import EDGES, OTHERS, Counts
from app.features.drift.distances import IntArray, excess, grouped, ks

Kind = Literal["label", "score", "length", "unknown"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# By measurement: docs/decisions/0034-drift.md. The alert in deploy/prometheus has it too.
PSI_LIMIT = 0.1
# Rarer labels are counted together: one that is seen twice in a window says nothing.
LEAST_SHARE = 0.03
# Of a kind, on either side; of fewer rows chance alone would make a drift.
LEAST_ROWS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """How far one kind of a window is from its reference.

    Args:
        kind: what was counted.
        psi: the population stability index, less what chance alone makes of it.
        ks: the largest difference of cumulative shares; None: labels have no order.

    """

    kind: Kind
    psi: float
    ks: float | None

    @property
    def is_drift(self) -> bool:
        """Whether it is more than chance and everyday changes make."""
        return self.psi > PSI_LIMIT


def compare(reference: Counts, window: Counts) -> tuple[Distance, ...]:
    """Return the distance of each kind that both have enough of."""
    return tuple(_distances(reference, window))


def _distances(reference: Counts, window: Counts) -> Iterator[Distance]:
    before, now = _labels(reference, window)
    if _are_enough(before, now) and len(before) > 1:
        yield Distance(kind="label", psi=excess(before, now), ks=None)
    for kind in KINDS:
        if kind not in EDGES or not _are_enough(reference.bins[kind], window.bins[kind]):
            continue
        before, now = reference.bins[kind], window.bins[kind]
        yield Distance(kind=kind, psi=excess(*grouped(before, now)), ks=ks(before, now))


def _are_enough(*counts: IntArray) -> bool:
    return all(counted.sum() >= LEAST_ROWS for counted in counts)


def _labels(reference: Counts, window: Counts) -> tuple[IntArray, IntArray]:
    """Return how often each label was seen, the rare ones together, in the same order."""
    least = LEAST_SHARE * reference.labels.total()
    common = [
        label for label, count in reference.labels.items() if count >= least and label != OTHERS
    ]
    before, now = ([counts.labels[label] for label in common] for counts in (reference, window))
    rest = [c.labels.total() - sum(seen) for c, seen in ((reference, before), (window, now))]
    return np.array([*before, rest[0]]), np.array([*now, rest[1]])
