"""What runs a user's class: here, in the threads that call it.

Everything that touches the class or its types is behind `Runner`, and what crosses it is data: a
class may run in a process of its own too (`process_runner`), in which this runner calls it.
"""

import logging
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from app.engines.python.contract import PREDICT, PREDICT_ONE, STREAM, Contract
from app.engines.python.failures import UserCallError, of_call
from app.engines.python.json_forms import JsonForm, json_of
from app.engines.python.output import Output
from app.engines.python.pieces import pieces_of
from app.errors import ServiceError

log = logging.getLogger(__name__)

# Lists of anything else have an order and a length: tuples, arrays, columns of tables.
NO_LISTS: Final = (str, bytes, Mapping, set, frozenset)
# Another model is full, away or too late: to call it again for each half would only add to it.
FOR_ALL: Final = frozenset({503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a class says of itself, once it is loaded."""

    item_schema: Mapping[str, Any]  # JSON Schema
    answer_schema: Mapping[str, Any]
    labels: tuple[str, ...]
    version: str  # its own, or its file's
    takes_batches: bool
    has_check: bool
    has_cost: bool = False
    stream_item_schema: Mapping[str, Any] | None = None  # None: it has no `stream`
    piece_schema: Mapping[str, Any] | None = None

    @property
    def has_stream(self) -> bool:
        """Whether it answers in pieces too."""
        return self.piece_schema is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An item of a request, as the class takes it."""

    value: Any
    cost: int
    is_truncated: bool = False


@dataclass(slots=True, kw_only=True)
class ReadItem:
    """An item's value here: the class may change it, and is to be given it anew then."""

    value: Any
    content: bytes  # JSON
    is_given: bool = False


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

    def stream(self, value: Any) -> Generator[bytes]:  # noqa: ANN401  # parsed JSON
        """Yield the pieces of the answer to an item as JSON, if it has streams.

        It may be closed before its end; each step may run in another thread.
        """
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
        self._stream = getattr(instance, STREAM, None)
        self._name = name
        self._file = file
        self._output = Output(name, shows_output=shows_output)
        self._is_told_of_numbers = False

    def prepare(self, values: Sequence[Any]) -> list[Item | Exception]:
        """Validate by the type of an item, and ask the class for the cost of each."""
        return self.prepare_json([json_of(value) for value in values])

    def prepare_json(self, contents: Sequence[bytes]) -> list[Item | Exception]:
        """Do the same with items as JSON."""
        with self._output.caught():
            return [self._prepare(content) for content in contents]

    def _prepare(self, content: bytes) -> Item | Exception:
        item = self._read(content)
        if isinstance(item, Item) and self._cost is not None:
            try:
                return Item(value=item.value, cost=_whole(self._cost(item.value.value)))
            except UserCallError as refused:
                return refused
            except BaseException as failure:  # noqa: BLE001  # of user code, sys.exit() too
                return of_call("cost", failure, file=self._file)
        return item

    def _read(self, content: bytes, form: JsonForm | None = None) -> Item | Exception:
        """Return an item of a type, by default that of `predict`, or its error."""
        try:
            value = (form or self._contract.item).read_json(content)
            return Item(value=ReadItem(value=value, content=content), cost=1)
        except ServiceError as refused:
            return refused
        except BaseException as failure:  # noqa: BLE001  # of a validator of the user's
            return of_call("reading an item", failure, file=self._file)

    def run_json(self, contents: Sequence[bytes]) -> list[Answer | Exception]:
        """Read items, and run those that are right; raises as `run`."""
        with self._output.caught():
            read = [self._read(content) for content in contents]
        items = [item for item in read if isinstance(item, Item)]
        answers = iter(self.run(items) if items else ())
        return [next(answers) if isinstance(item, Item) else item for item in read]

    def run(self, items: Sequence[Item]) -> list[Answer | Exception]:
        """Call the class, with all items at once if it takes batches."""
        with self._output.caught():
            values = [self._value(item.value) for item in items]
            if self._contract.takes_batches:
                return self._predict_many(values)
            return [self._predict_one(value) for value in values]

    def _value(self, item: ReadItem) -> Any:  # noqa: ANN401  # as annotated
        """Return an item's value; one that was in a batch that failed is read anew."""
        if item.is_given:
            return self._contract.item.read_json(item.content)
        item.is_given = True
        return item.value

    def _predict_many(self, values: list[Any]) -> list[Answer | Exception]:
        """Return the answer to each; where another model has no time for them, its error."""
        try:
            return [self._answer(answer) for answer in self._predict(values)]
        except ServiceError as error:  # of a model that the class calls
            if error.status not in FOR_ALL:
                raise  # in halves, the item that it is about is found
            return [error for _ in values]

    def _predict(self, values: list[Any]) -> Sequence[Any]:
        """Return an answer for each value.

        Raises:
            UserCallError: the class raised, or gave something else.
            ServiceError: of a model that it calls.
            MemoryError: a smaller batch may do.

        """
        try:
            answers = self._method(list(values))  # the class may change its list
        except (ServiceError, UserCallError):
            raise
        except BaseException as failure:
            if is_out_of_memory(failure):
                raise
            raise of_call(PREDICT, failure, file=self._file) from failure
        if isinstance(answers, NO_LISTS) or not hasattr(answers, "__len__"):
            given = type(answers).__name__
            raise UserCallError(
                f"predict returned {given}, not a list with an answer for each item"
            )
        try:
            answers = list(answers)
        except Exception as failure:
            raise of_call("reading the answers of predict", failure, file=self._file) from failure
        if len(answers) != len(values):
            message = f"predict returned {len(answers)} answers for {len(values)} items"
            if not self._is_told_of_numbers:
                self._is_told_of_numbers = True
                log.warning("wrong_number_of_answers", extra={"model": self._name, "why": message})
            raise UserCallError(message)
        return answers

    def _predict_one(self, value: Any) -> Answer | Exception:  # noqa: ANN401  # as annotated
        try:
            answer = self._method(value)
        except (ServiceError, UserCallError) as failure:
            return failure
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

    def stream(self, value: Any) -> Generator[bytes]:  # noqa: ANN401  # parsed JSON
        """Yield the pieces of the answer; raises UserCallError, or what is wrong with the item."""
        return self.stream_json(json_of(value))

    def stream_json(self, content: bytes) -> Generator[bytes]:
        """Do the same with an item as JSON."""
        item_form, piece_form = self._contract.stream_item, self._contract.piece
        assert item_form is not None and piece_form is not None  # noqa: S101, PT018  # it has streams
        with self._output.caught():
            item = self._read(content, item_form)
        if isinstance(item, Exception):
            raise item
        stream = self._stream
        assert stream is not None  # noqa: S101  # as above
        pieces = pieces_of(lambda: stream(item.value.value))
        try:
            while True:
                with self._output.caught():
                    piece = self._next(pieces, piece_form)
                if piece is None:
                    return
                yield piece
        finally:
            with self._output.caught():
                self._close(pieces)

    def _close(self, pieces: Generator[Any]) -> None:
        """End a stream; what its cleanup raises is logged, and ends no other."""
        try:
            pieces.close()
        except BaseException as failure:  # noqa: BLE001  # of user code, sys.exit() too
            why = str(of_call("closing a stream", failure, file=self._file))
            log.warning("stream_not_closed", extra={"model": self._name, "why": why})

    def _next(self, pieces: Generator[Any], form: JsonForm) -> bytes | None:
        """Return the next piece as JSON; None at the end.

        Raises:
            UserCallError: the class raised, or gave something of another type.

        """
        what = STREAM
        try:
            piece = next(pieces)
            what = "writing a piece"
            return form.write(piece)[1]
        except StopIteration:
            return None
        except (ServiceError, UserCallError):
            raise
        except BaseException as failure:
            raise of_call(what, failure, file=self._file) from failure

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


def is_out_of_memory(failure: BaseException) -> bool:
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
    try:
        return float(score)
    except OverflowError:  # JSON's integers have no bound
        return None
