"""How lines of the input are put together into requests of a batch route."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

BATCH = 256  # items that a batch route takes
MAX_BATCH_BYTES = 400_000  # well under the service's default bound of a body


def batches(items: Iterable[T], *, size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield batches that fit into one request; an item that is too long for any is alone."""
    batch: list[T] = []
    size = 0
    for item in items:
        if batch and (len(batch) == BATCH or size + size_of(item) > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += size_of(item)
    if batch:
        yield batch


def json_size(value: Any) -> int:  # noqa: ANN401  # any JSON
    """Return the bytes that a value takes in a list of JSON."""
    return len(json.dumps(value, ensure_ascii=False).encode(errors="replace")) + 1
