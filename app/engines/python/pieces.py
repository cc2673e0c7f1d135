"""The pieces that a class's `stream` yields, one by one, be it async or not."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from typing import Any


def pieces_of(stream: Callable[[], Any]) -> Generator[Any]:
    """Call `stream` for the first piece, and yield what it yields; closing this closes that."""
    pieces = stream()
    if isinstance(pieces, AsyncIterable):
        yield from _of_async(aiter(pieces))
    else:
        yield from _of(pieces)


def _of(pieces: Iterable[Any]) -> Generator[Any]:
    """Yield pieces, and close what is a generator."""
    iterator = iter(pieces)
    try:
        yield from iterator
    finally:
        if isinstance(iterator, Generator):
            iterator.close()


def _of_async(pieces: AsyncIterator[Any]) -> Generator[Any]:
    """Yield pieces of an async generator, which has an event loop of its own.

    The loop runs while a piece is waited for, so what it has started elsewhere rests meanwhile.
    """
    import asyncio  # most classes don't need it, and each process would load it

    async def step() -> Any:  # noqa: ANN401  # as the class yields
        return await anext(pieces)

    async def close() -> None:
        if (aclose := getattr(pieces, "aclose", None)) is not None:
            await aclose()

    with asyncio.Runner() as runner:
        try:
            while True:
                try:
                    piece = runner.run(step())
                except StopAsyncIteration:
                    return
                yield piece
        finally:
            runner.run(close())
