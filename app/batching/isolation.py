"""Keeps one bad item from failing its batch-mates."""

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class WrongCountError(RuntimeError):
    """The engine gave another number of results than it got items."""


def run_isolated(
    run: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]
) -> list[Result | Exception]:
    """Run a batch; when it raises, halve it until the items that fail alone are found.

    A batch that was too large for the memory is halved in the same way. One bad item among n
    costs about 2·log2(n) more calls.
    """
    try:
        return _counted(run(items), len(items))
    except Exception as failure:  # noqa: BLE001  # whatever the engine raised belongs to its item
        if len(items) == 1:
            return [failure]
    middle = len(items) // 2
    return [*run_isolated(run, items[:middle]), *run_isolated(run, items[middle:])]


def _counted(results: Sequence[Result], count: int) -> list[Result | Exception]:
    """See that no result can be taken for another item's."""
    if len(results) != count:
        raise WrongCountError(f"{len(results)} results for {count} items")
    return list(results)
