"""Turns what an engine says of tokens into entities, as transformers' pipeline aggregates them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from app.batching.base import Scheduler
from app.engines.base import FloatArray, Task, TokenClassifier
from app.engines.scores import softmax
from app.engines.token_windows import TokenRow
from app.models.registry import TaskKey

TOKEN_CLASSIFIERS = TaskKey[Scheduler[TokenClassifier]](Task.NER)
OUTSIDE = "O"  # the label of tokens that belong to no entity
BEGIN, INSIDE = "B-", "I-"
Indices = npt.NDArray[np.intp]
AT_ONCE = 1_000  # entities that become Python's objects together


class Aggregation(StrEnum):
    """How tokens become entities; transformers calls it `aggregation_strategy`."""

    NONE = "none"  # each token that isn't outside is one
    SIMPLE = "simple"  # neighbours with the same label are one
    # As simple, and all tokens of a word have the same label:
    FIRST = "first"  # that of its first token
    AVERAGE = "average"  # that with the highest score on average
    MAX = "max"  # that of its surest token


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """An entity in a text."""

    label: str
    score: float
    start: int  # in code points of the text
    end: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spans:
    """The entities of a text in their order: of a long one there are hundreds of thousands.

    Args:
        names: of labels.
        found: the labels that occur, in the order of their first entities.
        labels: (entities,), the number of each entity's label.
        scores, starts, ends: (entities,), as of a `Span`.

    """

    names: Sequence[str]
    found: tuple[str, ...]
    labels: Indices
    scores: FloatArray
    starts: Indices
    ends: Indices

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Span]:
        columns = (self.labels, self.scores, self.starts, self.ends)
        for begin in range(0, len(self), AT_ONCE):
            some = (column[begin : begin + AT_ONCE].tolist() for column in columns)
            for label, score, start, end in zip(*some, strict=True):
                yield Span(label=self.names[label], score=score, start=start, end=end)


@dataclass(frozen=True, slots=True)
class Labelled:
    """Units of a text, tokens or words, each with its label.

    Args:
        labels: (units,), the number of each unit's label.
        scores: (units,), of that label.
        starts, ends: (units,), in code points of the text.

    """

    labels: Indices
    scores: FloatArray
    starts: Indices
    ends: Indices


def spans_of(row: TokenRow, labels: Sequence[str], aggregation: Aggregation) -> Spans:
    """Return the entities of a text.

    Arrays do the work for all tokens: a text can have thousands.

    Args:
        row: of an engine.
        labels: the engine's.
        aggregation: how tokens become entities.

    """
    scores = softmax(row.logits)
    if not len(row.offsets):
        aggregation = Aggregation.NONE  # there is nothing to join
    if aggregation in {Aggregation.NONE, Aggregation.SIMPLE}:
        units = _tokens(row, scores)
    else:
        units = _words(row, scores, aggregation)
    if aggregation is Aggregation.NONE:
        return _each(units, labels)
    return _grouped(units, labels)


def _tokens(row: TokenRow, scores: FloatArray) -> Labelled:
    best = scores.argmax(axis=1)
    return Labelled(best, scores.max(axis=1), row.offsets[:, 0], row.offsets[:, 1])


def _words(row: TokenRow, scores: FloatArray, aggregation: Aggregation) -> Labelled:
    """Return words, whose tokens have one label."""
    begins = ~row.is_subword
    begins[0] = True
    firsts = np.flatnonzero(begins)
    lasts = np.append(firsts[1:], len(scores)) - 1
    if aggregation is Aggregation.AVERAGE:
        sums = np.add.reduceat(scores, firsts, axis=0)
        chosen = (sums / (lasts - firsts + 1)[:, np.newaxis]).astype(np.float32)
    elif aggregation is Aggregation.FIRST:
        chosen = scores[firsts]
    else:
        chosen = scores[_surest(scores.max(axis=1), firsts, lasts)]
    starts, ends = row.offsets[firsts, 0], row.offsets[lasts, 1]
    return Labelled(chosen.argmax(axis=1), chosen.max(axis=1), starts, ends)


def _surest(scores: FloatArray, firsts: Indices, lasts: Indices) -> Indices:
    """Return the token of each word that has the highest score, the first of several."""
    highest = np.maximum.reduceat(scores, firsts)
    is_highest = scores == np.repeat(highest, lasts - firsts + 1)
    places = np.flatnonzero(is_highest)
    surest: Indices = places[np.searchsorted(places, firsts)]
    return surest


def _each(units: Labelled, labels: Sequence[str]) -> Spans:
    """Return each token that isn't outside, with its label as the model has it."""
    inside = np.array([label != OUTSIDE for label in labels])[units.labels]
    chosen = units.labels[inside]
    return Spans(
        names=labels,
        found=_found(chosen, labels),
        labels=chosen,
        scores=units.scores[inside],
        starts=units.starts[inside],
        ends=units.ends[inside],
    )


def _grouped(units: Labelled, labels: Sequence[str]) -> Spans:
    """Join neighbours with one tag; B- begins a new entity even so."""
    tags = [_tag(label) for label in labels]
    numbers = {tag: number for number, tag in enumerate(dict.fromkeys(tags))}
    tag_of = np.array([numbers[tag] for tag in tags])[units.labels]
    is_begin = np.array([label.startswith(BEGIN) for label in labels])[units.labels]
    begins = is_begin.copy()
    begins[0] = True
    begins[1:] |= tag_of[1:] != tag_of[:-1]
    firsts = np.flatnonzero(begins)
    lasts = np.append(firsts[1:], len(begins)) - 1
    sums = np.add.reduceat(units.scores, firsts, dtype=np.float64)
    means = (sums / (lasts - firsts + 1)).astype(np.float32)
    names = [label.split("-", 1)[-1] for label in labels]
    inside = np.array([name != OUTSIDE for name in names])[units.labels[firsts]]
    firsts, lasts = firsts[inside], lasts[inside]
    chosen = units.labels[firsts]
    return Spans(
        names=names,
        found=_found(chosen, names),
        labels=chosen,
        scores=means[inside],
        starts=units.starts[firsts],
        ends=units.ends[lasts],
    )


def _found(labels: Indices, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of labels in the order of their first occurrence."""
    present = np.flatnonzero(np.bincount(labels, minlength=len(names))).tolist()
    firsts = sorted((int(np.argmax(labels == label)), label) for label in present)
    return tuple(dict.fromkeys(names[label] for _, label in firsts))


def _tag(label: str) -> str:
    """Return what labels of one entity share; only B- and I- are taken off, as transformers does.

    E-PER and S-PER of other schemes are tags of their own, so that they end an entity.
    """
    return label[len(BEGIN) :] if label.startswith((BEGIN, INSIDE)) else label
