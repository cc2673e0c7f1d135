"""`self.models`: how a user's class calls other models that the service serves.

A class sees the same in a thread and in a process of its own; what carries the call is `CallModel`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
from pydantic_core import PydanticSerializationError, from_json, to_json

from app.engines.base import FloatArray
from app.engines.python.failures import UserCallError
from app.errors import ServiceError

ATTRIBUTE: Final = "models"
# Vectors, (items, dimensions) float32, or a JSON array with an answer for each item.
Answers = FloatArray | bytes
NOT_HERE: Final = (
    "self.models is for load, predict, predict_one and stream, in the thread that runs them"
)
NOT_SERVED: Final = "self.models: no other models are served here"


class ModelCallError(UserCallError):
    """The class calls a model in a way that can't be; the message is safe to log."""


class CallModel(Protocol):
    """Calls a served model, and blocks until it has answered."""

    def __call__(self, name: str, items: bytes) -> Answers:
        """Return the answers.

        Args:
            name: of a model that the entry `uses`.
            items: a JSON array.

        Raises:
            ServiceError: as the model's own route would answer.
            ModelCallError: it can't be called here.

        """
        ...


class Model:
    """One of them.

    Args:
        name: of the model.
        call: carries the call.

    """

    def __init__(self, name: str, call: CallModel) -> None:
        self._name = name
        self._call = call

    def __call__(self, items: Sequence[Any]) -> Any:  # noqa: ANN401  # as the model answers
        """Return the answer to each item: an array of vectors, or a list.

        Raises:
            ServiceError: of the model; the class may catch it as `self.models.Error`.
            ModelCallError: the items are no list, or have no form in JSON.

        """
        if isinstance(items, str | bytes | Mapping) or not hasattr(items, "__len__"):
            raise ModelCallError(
                f"self.models[{self._name!r}] takes a list of items, and was given"
                f" {type(items).__name__}; .one(item) takes one"
            )
        try:
            content = to_json(
                list(items), bytes_mode="base64", inf_nan_mode="null", fallback=_plain
            )
        except (PydanticSerializationError, ValueError, TypeError):
            raise ModelCallError(
                f"self.models[{self._name!r}] was given items that have no form in JSON"
            ) from None
        answers = self._call(self._name, content)
        return answers if isinstance(answers, np.ndarray) else from_json(answers)

    def one(self, item: Any) -> Any:  # noqa: ANN401  # as above
        """Return the answer to one item; raises as a call."""
        return self([item])[0]


class Models(Mapping[str, Model]):
    """The models that a class may call, by name.

    Args:
        names: that the entry `uses`.
        call: carries the calls.

    """

    Error: Final = ServiceError

    def __init__(self, names: Sequence[str], call: CallModel) -> None:
        self._models = {name: Model(name, call) for name in names}

    def __getitem__(self, name: str) -> Model:
        """Return one.

        Raises:
            ModelCallError: the entry doesn't name it.

        """
        try:
            return self._models[name]
        except KeyError:
            there = ", ".join(self._models) or "none"
            raise ModelCallError(
                f"self.models has no {name!r}: uses, of the entry in models.toml, names {there}"
            ) from None

    def __contains__(self, name: object) -> bool:
        """Say whether the entry names it."""
        return name in self._models

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._models)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._models)


def call_nothing(name: str, items: bytes) -> Answers:  # noqa: ARG001
    """Refuse a call where there is no service, as when a class is only tried."""
    raise ModelCallError(NOT_SERVED)


def _plain(value: Any) -> Any:  # noqa: ANN401  # whatever an item holds
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(type(value).__name__)
