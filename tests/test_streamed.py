"""A streamed answer: before its first piece errors have their status, afterwards they end it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from app.core.connection import Connection
from app.errors import NotReadyError, ServiceError
from app.http.streamed import StreamedResponse

TIMEOUT_S = 10
SCOPE = {"type": "http"}


async def never() -> Any:
    await asyncio.Event().wait()


class Reader:
    """Takes what is sent; after `takes` pieces of a body it stops."""

    def __init__(self, takes: int = 100) -> None:
        self.starts: list[int] = []
        self.bodies: list[bytes] = []
        self.is_whole = False
        self.has_stopped = asyncio.Event()
        self._takes = takes

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.starts.append(message["status"])
            return
        if len(self.bodies) >= self._takes:
            self.has_stopped.set()
            await never()
        self.bodies.append(message["body"])
        self.is_whole = not message["more_body"]

    @property
    def text(self) -> str:
        return b"".join(self.bodies).decode()


class Source:
    """Gives pieces, then what the test says; notes what ended it."""

    def __init__(self, *pieces: bytes, then: Callable[[], Any] | None = None) -> None:
        self._pieces = pieces
        self._then = then
        self.is_closed = False
        self.ended_by: type[BaseException] | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncGenerator[bytes]]:
        try:
            async with aclosing(self._give()) as pieces:
                yield pieces
        except BaseException as error:
            self.ended_by = type(error)
            raise
        finally:
            self.is_closed = True

    async def _give(self) -> AsyncGenerator[bytes]:
        for piece in self._pieces:
            yield piece
        if self._then is not None:
            await self._then()


def answer(source: Source, *, can_fail: bool = True, **options: Any) -> StreamedResponse:
    def fail(error: ServiceError) -> bytes | None:
        return error.code.encode() if can_fail else None

    return StreamedResponse(source.open(), fail=fail, media_type="text/plain", **options)


async def refuse() -> None:
    raise NotReadyError("No.")


async def crash() -> None:
    raise ValueError("in confidence")


async def test_pieces_are_sent_as_they_are_and_the_answer_is_whole() -> None:
    reader, source = Reader(), Source(b"a", b"", b"b")
    await answer(source)(SCOPE, never, reader.send)
    assert (reader.starts, reader.bodies, reader.is_whole) == ([200], [b"a", b"b", b""], True)
    assert source.is_closed
    assert source.ended_by is None


async def test_without_a_piece_the_answer_is_204() -> None:
    reader = Reader()
    await answer(Source())(SCOPE, never, reader.send)
    assert (reader.starts, reader.text, reader.is_whole) == ([204], "", True)


async def test_an_error_before_the_first_piece_is_raised_as_from_any_route() -> None:
    reader, source = Reader(), Source(then=refuse)
    with pytest.raises(NotReadyError):
        await answer(source)(SCOPE, never, reader.send)
    assert reader.starts == []
    assert source.is_closed


async def test_an_error_after_it_is_the_last_line() -> None:
    reader, source = Reader(), Source(b"a ", then=refuse)
    await answer(source)(SCOPE, never, reader.send)
    assert (reader.text, reader.is_whole) == ("a not_ready", True)
    assert source.ended_by is NotReadyError


async def test_a_format_without_errors_breaks_off(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    response = answer(Source(b"a", then=refuse), can_fail=False, cut_event="export_cut")
    await response(SCOPE, never, reader.send)
    assert (reader.text, reader.is_whole) == ("a", False)
    assert [(r.message, vars(r)["reason"]) for r in caplog.records] == [("export_cut", "not_ready")]


async def test_a_crash_is_logged_and_told_without_its_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader, source = Reader(), Source(b"a ", then=crash)
    await answer(source)(SCOPE, never, reader.send)
    assert (reader.text, reader.is_whole) == ("a internal_error", True)
    assert [r.message for r in caplog.records] == ["stream_failed"]


async def test_a_reader_that_takes_nothing_is_cut_off_and_the_source_is_told() -> None:
    aborted = asyncio.Event()
    reader, source = Reader(takes=1), Source(b"a", b"b", b"c")
    async with asyncio.timeout(TIMEOUT_S):
        response = answer(source, send_timeout_s=0.01)
        await response(
            SCOPE | {"state": {"connection": Connection(aborted.set)}}, never, reader.send
        )
    assert aborted.is_set()
    assert source.ended_by is not None
    assert source.ended_by.__name__ == "ReaderTooSlowError"


async def test_a_client_that_leaves_ends_the_source_and_is_told_nothing() -> None:
    reader, source = Reader(takes=1), Source(b"a", b"b")

    async def receive() -> Any:
        await reader.has_stopped.wait()
        return {"type": "http.disconnect"}

    async with asyncio.timeout(TIMEOUT_S):
        await answer(source)(SCOPE, receive, reader.send)
    assert reader.bodies == [b"a"]
    assert source.ended_by is asyncio.CancelledError
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_process_that_ends_says_so_in_the_last_line() -> None:
    reader, waits = Reader(), asyncio.Event()

    async def wait() -> None:
        waits.set()
        await never()

    source = Source(b"a ", then=wait)
    sending = asyncio.create_task(answer(source)(SCOPE, never, reader.send))
    await asyncio.wait_for(waits.wait(), TIMEOUT_S)
    sending.cancel("shutdown")
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert (reader.text, reader.is_whole) == ("a not_ready", True)
    assert source.ended_by is asyncio.CancelledError
