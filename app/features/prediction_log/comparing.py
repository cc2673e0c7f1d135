"""How a version of a model does against the one that serves, by what the log has of both."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from app.services.prediction_log import PredictionLogEntry

SERVER_ERROR = 500
PERCENTILES = (50, 95, 99)
Pair = tuple[PredictionLogEntry, PredictionLogEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What the log has of one version.

    Args:
        rows: how many answers.
        error_share: of those that the service failed to give.
        latency_ms: of the others, by percentile.

    """

    rows: int
    error_share: float | None
    latency_ms: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two versions beside each other.

    Args:
        version: the one that is looked at.
        serving: the one that it is compared with.
        pairs: inputs that both answered, in the same request.
        agreement: share of pairs with the same label; None without pairs that have labels.
        score_shift: mean difference of the scores of pairs with the same label.
        label_shift: half the sum of the differences of the labels' shares, from 0 to 1, over all
            answers; it needs no pairs.

    """

    version: Side
    serving: Side
    pairs: int
    agreement: float | None
    score_shift: float | None
    label_shift: float | None


def compare(own: Sequence[PredictionLogEntry], other: Sequence[PredictionLogEntry]) -> Comparison:
    """Compare the answers of a version with those of the one that serves."""
    pairs = _pairs(own, other)
    same = [(one, two) for one, two in pairs if one.label == two.label]
    shifts = [
        one.score - two.score
        for one, two in same
        if one.score is not None and two.score is not None
    ]
    return Comparison(
        version=_side(own),
        serving=_side(other),
        pairs=len(pairs),
        agreement=_agreement(pairs),
        score_shift=fmean(shifts) if shifts else None,
        label_shift=_label_shift(own, other),
    )


def _agreement(pairs: Sequence[Pair]) -> float | None:
    """Return the share of pairs with the same label, of those with any: a reranker has none."""
    labels = [(one.label, two.label) for one, two in pairs if one.label or two.label]
    return sum(one == two for one, two in labels) / len(labels) if labels else None


def _side(rows: Sequence[PredictionLogEntry]) -> Side:
    good = sorted(row.latency_ms for row in rows if row.error is None)
    failed = sum(row.status >= SERVER_ERROR for row in rows)
    return Side(
        rows=len(rows),
        error_share=failed / len(rows) if rows else None,
        latency_ms={f"p{p}": good[len(good) * p // 100] for p in PERCENTILES} if good else {},
    )


def _pairs(own: Sequence[PredictionLogEntry], other: Sequence[PredictionLogEntry]) -> list[Pair]:
    """Return answers to the same input of the same request.

    Where the log keeps nothing of inputs, those of requests with one input.
    """
    known: dict[tuple[str, str | None], list[PredictionLogEntry]] = {}
    for row in other:
        known.setdefault((row.request_id, row.input_hash), []).append(row)
    pairs = []
    for row in own:
        partners = known.get((row.request_id, row.input_hash), [])
        is_certain = row.input_hash is not None or len(partners) == 1
        if is_certain and partners and row.error is None and partners[0].error is None:
            pairs.append((row, partners[0]))
    return pairs


def _label_shift(
    own: Sequence[PredictionLogEntry], other: Sequence[PredictionLogEntry]
) -> float | None:
    mine = Counter(row.label for row in own if row.label is not None)
    theirs = Counter(row.label for row in other if row.label is not None)
    if not mine or not theirs:
        return None
    shares = (mine[x] / mine.total() - theirs[x] / theirs.total() for x in {*mine, *theirs})
    return sum(map(abs, shares)) / 2
