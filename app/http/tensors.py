"""What a task answers in the Open Inference Protocol: tensors of texts in, tensors out.

A task says which tensors there are; the feature `open_inference` has the routes and their forms.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.core.callers import Scope
from app.engines.base import FloatArray
from app.errors import InvalidRequestError
from app.http.task_runner import TaskRunner

Texts = Mapping[str, Sequence[str]]  # the elements of each tensor, by its name
# By name: numbers, (texts, …) float32, or texts.
Tensors = Mapping[str, "FloatArray | list[str]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberTensor:
    """A tensor of float32 that a model answers.

    Args:
        name: of the tensor.
        width: of each text's row; None where it is a single number.

    """

    name: str
    width: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorTask:
    """What a task takes and answers.

    Args:
        inputs: names of the tensors of texts that it takes, all of them needed.
        scope: what a key must have.
        max_texts: that a tensor may have.
        numbers: returns the tensors of numbers that an engine's models answer.
        answer: runs texts on the model of that name.
        texts: names of the tensors of texts that it answers, one text for each.

    """

    inputs: tuple[str, ...]
    scope: Scope
    max_texts: int
    numbers: Callable[[Any], Sequence[NumberTensor]]
    answer: Callable[[Texts, TaskRunner, str], Awaitable[Tensors]]
    texts: tuple[str, ...] = field(default=())


def wrong_tensor(name: str, message: str) -> InvalidRequestError:
    """Return the error of a tensor that can't be used."""
    return InvalidRequestError([{"loc": ["body", "inputs", name], "msg": message, "type": "value"}])
