"""Keeps one bad item from failing its batch-mates."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from app.errors import (
    UpstreamBusyError,
    UpstreamFailedError,
    UpstreamModelNotFoundError,
    UpstreamUnauthorizedError,
    UpstreamUnreachableError,
)

Item = TypeVar("Item")
Result = TypeVar("Result")


# Of another server, which no text is to blame for: each half would fail in the same way, and cost
# that server more calls while it has trouble.
OF_ALL = (
    UpstreamBusyError,
    UpstreamFailedError,
    UpstreamModelNotFoundError,
    UpstreamUnauthorizedError,
    UpstreamUnreachableError,
)


class WrongCountError(RuntimeError):
    """The engine returned another number of results than it got items."""


def ignore(_failure: Exception, _count: int) -> None:
    """Do nothing about a failed call."""


def run_isolated(
    run: Callable[[Sequence[Item]], Sequence[Result]],
    items: Sequence[Item],
    *,
    on_failure: Callable[[Exception, int], None] = ignore,
) -> list[Result | Exception]:
    """Run a batch; when it raises, halve it until the items that fail alone are found.

    A batch that was too large for the memory is halved in the same way. One bad item among n
    costs about 2·log2(n) more calls. A failure of a remote server is that of all items.

    Args:
        run: the engine's call: one result for each item, in order.
        items: at least one.
        on_failure: called for each failed call, with its number of items.

    """
    try:
        return _counted(run(items), len(items))
    except Exception as failure:  # noqa: BLE001  # an engine can raise anything
        on_failure(failure, len(items))
        if len(items) == 1 or isinstance(failure, OF_ALL):
            return [failure for _ in items]
    middle = len(items) // 2
    return [
        *run_isolated(run, items[:middle], on_failure=on_failure),
        *run_isolated(run, items[middle:], on_failure=on_failure),
    ]


def _counted(results: Sequence[Result], count: int) -> list[Result | Exception]:
    """Check the number of results: with another one they would go to the wrong items."""
    if len(results) != count:
        raise WrongCountError(f"{len(results)} results for {count} items")
    return list(results)


def is_out_of_memory(failure: Exception) -> bool:
    """Tell whether a smaller batch could succeed; torch has an error class of its own for it."""
    return isinstance(failure, MemoryError) or type(failure).__name__ == "OutOfMemoryError"
