"""Several answers to one request: generated at once, each in a slot of its own."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Coroutine,
    Iterable,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol, TypeVar

from app.batching.deadline import Deadline
from app.engines.chat_base import Generation
from app.errors import ServiceError, UnsupportedFieldError
from app.http.streamed import SEND_TIMEOUT_S, StreamedResponse
from app.services.streaming import Answer, ChatService, Conversation
from app.tasks.chat.dialects import Dialect
from app.tasks.chat.streams import HEARTBEAT_S, stream_lines

T = TypeVar("T")


class NumberedDialect(Dialect, Protocol):
    """Writes one of several answers."""

    def end(self, generation: Generation) -> bytes:
        """Return the last lines of this answer."""
        ...

    def total(self, generations: Sequence[Generation]) -> bytes:
        """Return the last lines of a stream whose answers have all ended well."""
        ...


def check_answers(count: int, most: int) -> None:
    """Refuse more answers than one request may ask for.

    Raises:
        UnsupportedFieldError: there are more.

    """
    if count > most:
        detail = f"'n' is not supported: a request may ask for {most} answers, not {count}."
        raise UnsupportedFieldError("n", detail=detail)


async def charged(asking: Iterable[Awaitable[Conversation]]) -> list[Conversation]:
    """Return the conversations of a request, whose caller is charged for each.

    Raises:
        ServiceError: one was refused; what was charged for those before it is given back.

    """
    conversations: list[Conversation] = []
    try:
        for one in asking:
            conversations.append(await one)  # noqa: PERF401  # those before a refused one count
    except BaseException as failure:
        for conversation in conversations:
            conversation.refuse(failure if isinstance(failure, ServiceError) else None)
        raise
    return conversations


async def answer_all(
    chat: ChatService, conversations: Sequence[Conversation], *, deadline: Deadline
) -> list[Answer]:
    """Return all answers, in order.

    Raises:
        ServiceError: one of them failed, and the others were stopped.

    """
    if len(conversations) == 1:
        return [await chat.answer(conversations[0], deadline=deadline)]
    return await _together([chat.answer(each, deadline=deadline) for each in conversations])


async def _together(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Wait for all; when one fails, stop the others and raise its error."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    except asyncio.CancelledError as cancelled:
        _stop(tasks, *cancelled.args)
        raise
    finally:
        _stop(tasks)
        await asyncio.wait(tasks)
        failures = [task.exception() for task in tasks if not task.cancelled()]
    for failure in failures:
        if failure is not None:
            raise failure
    return [task.result() for task in tasks]


def _stop(tasks: Sequence[asyncio.Task[T]], *cause: object) -> None:
    """Cancel what runs, once: a second time would interrupt its wait for its thread."""
    for task in tasks:
        if not task.done() and not task.cancelling():
            task.cancel(*cause)


class ManyStreams(StreamedResponse):
    """Sends several answers as their tokens come.

    Args:
        chat: generates them.
        conversations: one for each answer.
        deadline: of all.
        dialects: one for each answer.

    """

    def __init__(
        self,
        chat: ChatService,
        conversations: Sequence[Conversation],
        *,
        deadline: Deadline,
        dialects: Sequence[NumberedDialect],
    ) -> None:
        self._chat = chat
        self._deadline = deadline
        self._asked = list(zip(conversations, dialects, strict=True))
        # A few pieces; a client that is slow makes the streams wait.
        self._lines: asyncio.Queue[bytes] = asyncio.Queue(len(self._asked))
        self._failure: ServiceError | None = None
        self._cause: tuple[object, ...] = ()  # of a cancel: the process ends, or the client left
        first = dialects[0]
        super().__init__(
            self._opened(),
            fail=first.fail,
            media_type=first.media_type,
            send_timeout_s=SEND_TIMEOUT_S,
        )

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[AsyncGenerator[bytes]]:
        async with aclosing(self._joined()) as lines:
            try:
                yield lines
            except ServiceError as error:
                self._failure = error
                raise
            except asyncio.CancelledError as cancelled:
                self._cause = cancelled.args
                raise

    async def _joined(self) -> AsyncGenerator[bytes]:
        """Yield the lines of all as they come, and what follows the last of them."""
        running = asyncio.ensure_future(
            _together([self._run(conversation, dialect) for conversation, dialect in self._asked])
        )
        taking: asyncio.Future[bytes] | None = None
        try:
            while not running.done() or not self._lines.empty():
                taking = asyncio.ensure_future(self._lines.get())
                await asyncio.wait({taking, running}, return_when=asyncio.FIRST_COMPLETED)
                if taking.done():
                    yield taking.result()
                else:
                    taking.cancel()
            yield self._asked[0][1].total(running.result())
        except asyncio.CancelledError as cancelled:
            self._cause = cancelled.args
            raise
        finally:
            if taking is not None:
                taking.cancel()
            running.cancel(*self._cause)
            await asyncio.wait({running})
            if not running.cancelled():
                running.exception()  # else asyncio would log that nothing has read it

    async def _run(self, conversation: Conversation, dialect: NumberedDialect) -> Generation:
        """Generate one answer, and queue its lines."""
        async with (
            self._chat.open(conversation, deadline=self._deadline) as stream,
            aclosing(
                stream_lines(stream, dialect, heartbeat_s=HEARTBEAT_S, finish=dialect.end)
            ) as lines,
        ):
            try:
                async for line in lines:
                    await self._lines.put(line)
            except asyncio.CancelledError:
                if self._failure is not None:  # else the client has left
                    stream.finish(self._failure)
                raise
        assert isinstance(stream.end, Generation)  # noqa: S101  # or its lines had raised
        return stream.end
