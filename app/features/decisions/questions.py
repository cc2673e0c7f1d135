"""Questions and answers as backends know them, whichever dialect they come in."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.errors import InvalidRequestError

Place = tuple[str | int, ...]


class Kind(StrEnum):
    """What is asked."""

    PREDICATE = "predicate"  # whether a statement is true
    CHOICE = "choice"  # which of several answers is right
    SCORE = "score"  # which of several levels, in their order


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One possible answer."""

    text: str
    description: str = ""


# A predicate's options, in this order.
TRUE_OR_FALSE = (Option(text="true"), Option(text="false"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question about a state.

    Args:
        kind: what is asked.
        place: of the question in the body, for errors.
        options: of a predicate true and false; of a score the levels, the lowest first.
        instructions: the question in words; may be empty.
        name: that the client gave it.
        options_field: where the body has the options.

    """

    kind: Kind
    place: Place
    options: tuple[Option, ...] = TRUE_OR_FALSE
    instructions: str = ""
    name: str | None = None
    options_field: str = "instructions"

    def fault(self, message: str, *, field: str | None = None) -> InvalidRequestError:
        """Return the error of one of its fields: of its options where none is named."""
        place = ["body", *self.place, field or self.options_field]
        return InvalidRequestError([{"loc": place, "msg": message, "type": "question"}])


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How likely each option of a question is.

    Args:
        probabilities: in the order of the options; they sum up to 1.
        confidence: how likely the best one is among all that the model could have said.

    """

    probabilities: tuple[float, ...]
    confidence: float

    @property
    def best(self) -> int:
        """The likeliest option; the first of equals."""
        return self.probabilities.index(max(self.probabilities))

    @property
    def score(self) -> float:
        """The mean of the options' numbers, weighted by their probabilities."""
        return sum(number * p for number, p in enumerate(self.probabilities))

    @classmethod
    def of(cls, weights: Sequence[float], *, confidence: float | None = None) -> "Verdict":
        """Return the verdict of numbers that are to sum up to 1; the confidence is the best one.

        Without any weight all options are alike.
        """
        total = sum(weights)
        count = len(weights)
        probabilities = tuple(w / total if total > 0 else 1 / count for w in weights)
        best = max(weights) if confidence is None else confidence
        return cls(probabilities=probabilities, confidence=min(1.0, best))


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionUsage:
    """What decisions cost, in tokens."""

    input_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A verdict for each question, in their order; None where the model gave none."""

    model: str
    verdicts: tuple[Verdict | None, ...]
    usage: DecisionUsage
