"""What a user's class offers: which of its methods are called, and with which types.

There is no base class: methods are found by their names, types by their annotations.
"""

import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass
from typing import Any, Final, get_args, get_origin, get_type_hints

from app.engines.python.failures import UserCodeError
from app.engines.python.json_forms import JsonForm

PREDICT: Final = "predict"
PREDICT_ONE: Final = "predict_one"
STREAM: Final = "stream"
OPTIONAL: Final = ("load", "cost", "check")
# Of what `predict` may be annotated with: each holds a value for each item.
BATCHES: Final = (list, Sequence, Collection, Iterable)
# Of what `stream` may be annotated with: each yields pieces.
STREAMS: Final = (Iterator, Iterable, Generator, AsyncIterator, AsyncIterable, AsyncGenerator)
EXAMPLE: Final = "def predict_one(self, item: list[float]) -> str"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What of a class is used.

    Args:
        item: the type of what a request sends.
        answer: the type of what it gets.
        method: which is called, `predict` or `predict_one`.
        stream_item: the type of what a request for a stream sends; None: it has no streams.
        piece: the type of a piece of a stream.

    """

    item: JsonForm
    answer: JsonForm
    method: str
    stream_item: JsonForm | None = None
    piece: JsonForm | None = None

    @property
    def takes_batches(self) -> bool:
        """Whether the method is called with many items at once."""
        return self.method == PREDICT


def read_contract(kind: type) -> Contract:
    """Return what a class offers.

    Raises:
        UserCodeError: something is missing or can't be called; names it.

    """
    method = next((name for name in (PREDICT, PREDICT_ONE) if hasattr(kind, name)), None)
    if method is None:
        raise UserCodeError(
            f"{kind.__name__} has neither predict(self, items) nor predict_one(self, item)"
        )
    for name in (method, *OPTIONAL):
        if hasattr(kind, name):
            _check_callable(kind, name)
    _check_is_made(kind)
    parameter, item, answer = _types(kind, method)
    if method == PREDICT:
        item = _of_batch(item, f"the parameter {parameter} of predict")
        answer = _of_batch(answer, "the answer of predict")
    stream_item, piece = _read_stream(kind) if hasattr(kind, STREAM) else (None, None)
    return Contract(
        stream_item=stream_item,
        piece=piece,
        item=JsonForm(item, what=f"an item of {method}"),
        answer=JsonForm(answer, what=f"an answer of {method}"),
        method=method,
    )


def _types(kind: type, method: str) -> tuple[str, Any, Any]:
    """Return a method's parameter, its type, and the type of the answer.

    Raises:
        UserCodeError: one isn't annotated.

    """
    parameter = _check_parameter(kind, method)
    hints = _hints(kind, method)
    for needed in (parameter, "return"):
        if needed not in hints:
            missing = "its answer" if needed == "return" else f"its parameter {needed}"
            raise UserCodeError(
                f"{method} has no annotation of {missing}: the types are the schema of the"
                f" requests; such as {EXAMPLE}"
            )
    return parameter, hints[parameter], hints["return"]


def _read_stream(kind: type) -> tuple[JsonForm, JsonForm]:
    """Return the types of an item and of a piece of `stream`.

    Raises:
        UserCodeError: it can't be called, or its pieces have no type.

    """
    if not callable(getattr(kind, STREAM)):
        raise UserCodeError(f"stream is {type(getattr(kind, STREAM)).__name__}, not a method")
    if inspect.iscoroutinefunction(inspect.unwrap(getattr(kind, STREAM))):
        raise UserCodeError("stream is async and yields nothing; let it yield its pieces")
    _, item, answer = _types(kind, STREAM)
    if get_origin(answer) not in STREAMS or not get_args(answer):
        raise UserCodeError(
            "the answer of stream is to be pieces of a type: Iterator[…], or AsyncIterator[…]"
        )
    piece = get_args(answer)[0]
    return JsonForm(item, what="an item of stream"), JsonForm(piece, what="a piece of stream")


def _check_callable(kind: type, name: str) -> None:
    """Refuse what can't be called plainly.

    Raises:
        UserCodeError: it isn't a method, or one that is awaited or iterated.

    """
    method = inspect.unwrap(getattr(kind, name))
    if not callable(method):
        raise UserCodeError(f"{name} is {type(method).__name__}, not a method")
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        raise UserCodeError(f"{name} is async; it runs in a thread: write it without async")
    if inspect.isgeneratorfunction(method):
        raise UserCodeError(f"{name} yields; let it return its answer")


def _check_parameter(kind: type, name: str) -> str:
    """Return the name of the one parameter that a method is called with.

    Raises:
        UserCodeError: it has none, or needs more.

    """
    parameters = list(_signature(kind, name).parameters.values())
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    needed = [p for p in parameters if p.default is p.empty and p.kind in positional]
    others = [p for p in parameters if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
    if len(needed) != 1 or others:
        plural = "items" if name == PREDICT else "item"
        raise UserCodeError(f"{name} is called with one argument: {name}(self, {plural})")
    return needed[0].name


def _signature(kind: type, name: str) -> inspect.Signature:
    """Return how a method of an object is called."""
    signature = inspect.signature(getattr(kind, name))
    # Of the class, self is the first; of static methods and those of the class it isn't there.
    if isinstance(inspect.getattr_static(kind, name), staticmethod | classmethod):
        return signature
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _check_is_made(kind: type) -> None:
    """Refuse what can't be made without arguments.

    Raises:
        UserCodeError: `__init__` needs some.

    """
    try:
        inspect.signature(kind).bind()
    except TypeError as missing:
        raise UserCodeError(
            f"{kind.__name__}() is called without arguments, and {missing}; give it a default, or"
            " read it in load"
        ) from None
    except ValueError:  # Python can't tell, of a class that is no Python
        return


def arguments_of_load(
    load: Callable[..., Any], device: str
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return what an object's `load` is called with: the device, if it takes one.

    Raises:
        UserCodeError: it needs something else.

    """
    signature = inspect.signature(load)
    for arguments, named in (((device,), {}), ((), {"device": device}), ((), {})):
        try:
            signature.bind(*arguments, **named)
        except TypeError:
            continue
        return arguments, named
    raise UserCodeError("load is called with the device alone: load(self, device)")


def _hints(kind: type, name: str) -> dict[str, Any]:
    method: Callable[..., Any] = getattr(kind, name)
    try:
        return get_type_hints(method, include_extras=True)
    except Exception as failure:  # an annotation in quotes is evaluated here
        raise UserCodeError(
            f"the annotations of {name} can't be resolved: {type(failure).__name__}: {failure}"
        ) from failure


def _of_batch(annotation: Any, what: str) -> Any:  # noqa: ANN401  # any annotation
    """Return the type of one of a batch.

    Raises:
        UserCodeError: it isn't annotated as a list.

    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is tuple and len(arguments) == len("x…") and arguments[1] is ...:
        return arguments[0]
    if not isinstance(origin, type) or origin not in BATCHES or len(arguments) != 1:
        raise UserCodeError(f"{what} is to be a list of a type, with one for each item: list[…]")
    return arguments[0]
