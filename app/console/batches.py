"""How lines of the input are put together into requests of a batch route."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
Ask = Callable[[list[str]], list[Any]]

BATCH = 256  # items that a batch route takes
MAX_BATCH_BYTES = 400_000  # well under the service's default bound of a body


# As the service's error for a text that is too long; this one isn't even sent.
TOO_LONG = {
    "error": {"code": "text_too_long", "detail": f"over {MAX_BATCH_BYTES} bytes; it wasn't sent"}
}


def results_of_lines(lines: Iterable[str], ask: Ask) -> Iterator[tuple[str, Any]]:
    """Yield each line without the blanks around it, and its result.

    Args:
        lines: of the input.
        ask: sends texts that fit into one request; returns a result for each.

    """
    for batch in batches((line.strip() for line in lines), size_of=json_size):
        is_sent = json_size(batch[0]) <= MAX_BATCH_BYTES
        yield from zip(batch, ask(batch) if is_sent else [TOO_LONG], strict=True)


def has_failed(text: str, result: Mapping[str, Any]) -> bool:
    """Say whether a line counts as failed; blank ones don't, as files often have some."""
    return "error" in result and text != ""


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
