"""What runs a user's class: here, in the threads that call it.

Everything that touches the class or its types is behind `Runner`, and what crosses it is data, so
that a class may run in another place, such as a process of its own.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from app.engines.python.contract import PREDICT, PREDICT_ONE, Contract
from app.engines.python.failures import UserCallError, of_call
from app.engines.python.output import Output
from app.errors import ServiceError

log = logging.getLogger(__name__)

# Lists of anything else have an order and a length: tuples, arrays, columns of tables.
NO_LISTS: Final = (str, bytes, Mapping, set, frozenset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a class says of itself, once it is loaded."""

    item_schema: Mapping[str, Any]  # JSON Schema
    answer_schema: Mapping[str, Any]
    labels: tuple[str, ...]
    version: str  # its own, or its file's
    takes_batches: bool
    has_check: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An item of a request, as the class takes it."""

    value: Any
    cost: int
    is_truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to an item."""

    content: bytes  # JSON
    label: str | None = None
    score: float | None = None


class Runner(Protocol):
    """Runs a class. All methods block, and may be called in any thread."""

    facts: Facts

    def prepare(self, values: Sequence[Any]) -> list[Item | Exception]:
        """Make items of parsed JSON; one that is wrong has its error in its place."""
        ...

    def run(self, items: Sequence[Item]) -> list[Answer | Exception]:
        """Return the answer to each; raises if the class failed on all of them together."""
        ...

    def check(self) -> str | None:
        """Ask the class whether it is well; return what is wrong."""
        ...

    def close(self) -> None:
        """Release it. Called once, when no call is running."""
        ...


class ThreadRunner:
    """Runs an object in the thread that calls.

    Args:
        instance: of the user's class, loaded.
        contract: of the class.
        facts: what it says of itself.
        name: of the model, for the log.
        file: of the class.
        shows_output: whether the log has what it prints.

    """

    def __init__(
        self,
        instance: Any,  # noqa: ANN401  # of any class
        contract: Contract,
        facts: Facts,
        *,
        name: str,
        file: str,
        shows_output: bool,
    ) -> None:
        self.facts = facts
        self._contract = contract
        self._method = getattr(instance, contract.method)
        self._cost = getattr(instance, "cost", None)
        self._check = getattr(instance, "check", None)
        self._name = name
        self._file = file
        self._output = Output(name, shows_output=shows_output)
        self._is_told_of_numbers = False

    def prepare(self, values: Sequence[Any]) -> list[Item | Exception]:
        """Validate by the type of an item, and ask the class for the cost of each."""
        with self._output.caught():
            return [self._prepare(value) for value in values]

    def _prepare(self, value: Any) -> Item | Exception:  # noqa: ANN401  # parsed JSON
        what = "reading an item"
        try:
            item = self._contract.item.read(value)
            if self._cost is None:
                return Item(value=item, cost=1)
            what = "cost"
            return Item(value=item, cost=_whole(self._cost(item)))
        except (ServiceError, UserCallError) as refused:
            return refused
        except BaseException as failure:  # noqa: BLE001  # of user code, sys.exit() too
            return of_call(what, failure, file=self._file)

    def run(self, items: Sequence[Item]) -> list[Answer | Exception]:
        """Call the class, with all items at once if it takes batches."""
        values = [item.value for item in items]
        with self._output.caught():
            if self._contract.takes_batches:
                return [self._answer(answer) for answer in self._predict(values)]
            return [self._predict_one(value) for value in values]

    def _predict(self, values: list[Any]) -> Sequence[Any]:
        """Return an answer for each value.

        Raises:
            UserCallError: the class raised, or gave something else.
            MemoryError: a smaller batch may do.

        """
        try:
            answers = self._method(values)
        except BaseException as failure:
            if _is_out_of_memory(failure):
                raise
            raise of_call(PREDICT, failure, file=self._file) from failure
        if isinstance(answers, NO_LISTS) or not hasattr(answers, "__len__"):
            given = type(answers).__name__
            raise UserCallError(
                f"predict returned {given}, not a list with an answer for each item"
            )
        if len(answers) != len(values):
            message = f"predict returned {len(answers)} answers for {len(values)} items"
            if not self._is_told_of_numbers:
                self._is_told_of_numbers = True
                log.warning("wrong_number_of_answers", extra={"model": self._name, "why": message})
            raise UserCallError(message)
        return list(answers)

    def _predict_one(self, value: Any) -> Answer | Exception:  # noqa: ANN401  # as annotated
        try:
            answer = self._method(value)
        except BaseException as failure:  # noqa: BLE001  # of user code, sys.exit() too
            return of_call(PREDICT_ONE, failure, file=self._file)
        return self._answer(answer)

    def _answer(self, answer: Any) -> Answer | Exception:  # noqa: ANN401  # as annotated, or not
        try:
            plain, content = self._contract.answer.write(answer)
        except UserCallError as refused:
            return refused
        except Exception as failure:  # noqa: BLE001  # of a serializer of the user's
            return of_call("writing an answer", failure, file=self._file)
        return Answer(content=content, label=_label(plain, self.facts.labels), score=_score(plain))

    def check(self) -> str | None:
        """Ask `check()`: it raises, or returns False or a text, where something is wrong."""
        if self._check is None:
            return None
        with self._output.caught():
            try:
                result = self._check()
            except BaseException as failure:  # noqa: BLE001  # of user code, sys.exit() too
                return str(of_call("check", failure, file=self._file))
        if isinstance(result, str) and result:
            return f"check: {result}"
        return "check: it returned False" if result is False else None

    def close(self) -> None:
        """Do nothing: the object goes when no reference to it is left."""


def _whole(cost: Any) -> int:  # noqa: ANN401  # what a class answers
    """Return a cost as a whole number, at least 1.

    Raises:
        UserCallError: it is none.

    """
    try:
        whole: int = math.ceil(cost)
    except (TypeError, ValueError, OverflowError):
        raise UserCallError(f"cost answered {type(cost).__name__}, not a finite number") from None
    return max(1, whole)


def _is_out_of_memory(failure: BaseException) -> bool:
    """Tell whether a smaller batch could succeed; torch has an error class of its own for it."""
    return isinstance(failure, MemoryError) or type(failure).__name__ == "OutOfMemoryError"


def _label(plain: Any, labels: tuple[str, ...]) -> str | None:  # noqa: ANN401  # any JSON
    """Return an answer's label, for the log of predictions: only one that the class declares."""
    label = plain.get("label") if isinstance(plain, dict) else plain
    return label if isinstance(label, str) and label in labels else None


def _score(plain: Any) -> float | None:  # noqa: ANN401  # any JSON
    score = plain.get("score") if isinstance(plain, dict) else plain
    if isinstance(score, bool) or not isinstance(score, int | float):
        return None
    return float(score)
