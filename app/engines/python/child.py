"""The process of a model: loads the class and answers the service's calls, until the service ends.

The main thread runs the class; others answer what must not wait for it, and streams.
"""

import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.core.logs import configure, is_private
from app.core.parent import die_with_parent
from app.engines.python.class_loading import load_class
from app.engines.python.failures import UserCallError
from app.engines.python.frames import (
    Channel,
    ChannelClosedError,
    Message,
    NoRoomError,
    SharedMemory,
)
from app.engines.python.messages import (
    CALL,
    CHECK,
    END,
    FACTS,
    FAILED,
    NEXT,
    OUT_OF_MEMORY,
    PREPARE,
    RUN,
    STREAM,
    Start,
    blobs_of,
    cost_head,
    refusal_of,
    row_head,
)
from app.engines.python.model_messages import ERROR, AskService, error_head
from app.engines.python.runner import Item, ThreadRunner, is_out_of_memory
from app.errors import ServiceError, StartupError

log = logging.getLogger(__name__)

Reply = tuple[Mapping[str, Any], Sequence[bytes]]
Calls = Mapping[str, Callable[[Message], Reply]]
# Of 1000: where memory lacks, the kernel ends this process and not the service.
OOM_SCORE = 500


def main() -> None:
    """Serve the class that the first message names; see `model_process.py` for the arguments."""
    parent, has_memory, notes, *descriptors = map(int, sys.argv[1:])
    die_with_parent(parent)
    # What a crash is told by: the service reads it, and has it in its line of the log.
    faulthandler.enable(file=notes)
    faulthandler.register(signal.SIGUSR1, file=notes, all_threads=True)
    # The service ends its processes itself, when its requests have their answers; and handlers
    # aren't inherited by programs that the class starts, as SIG_IGN would be.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), encoding="ascii")
    memory = None
    if has_memory:
        outgoing, incoming, *descriptors = descriptors
        memory = SharedMemory(outgoing=outgoing, incoming=incoming)
    connections = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    calls, *others = (
        Channel(connection, memory if number == 0 else None)
        for number, connection in enumerate(connections)
    )
    with suppress(ChannelClosedError):
        _serve(calls, *others)
    # Threads of the class, or of its libraries, could keep the process.
    logging.shutdown()
    os._exit(0)


def _serve(calls: Channel, others: Channel, *streams: Channel) -> None:
    """Load the class, tell of it, and answer until the service closes the channel."""
    start = Start.of(calls.receive().head)
    if start.logs is not None:
        configure(**start.logs)
    ask = AskService()
    try:
        with ask.over(calls):
            runner = load_class(start, ask)
    except StartupError as failure:
        calls.send(refusal_of(failure))
        return
    calls.send({FACTS: asdict(runner.facts)})
    is_private.set(True)  # the variable's name says it
    _answer_in_thread(
        others,
        {
            PREPARE: lambda message: _prepare(runner, message),
            CHECK: lambda _: ({CHECK: runner.check()}, ()),
        },
    )
    if runner.facts.has_stream:
        for channel in streams:
            _answer_in_thread(channel, _Stream(runner).calls(), ask)
    _answer(calls, {RUN: lambda message: _run(runner, message)}, ask)


def _answer_in_thread(channel: Channel, calls: Calls, ask: AskService | None = None) -> None:
    def answer() -> None:
        is_private.set(True)
        with suppress(ChannelClosedError):
            _answer(channel, calls, ask)

    threading.Thread(target=answer, daemon=True).start()


def _answer(channel: Channel, calls: Calls, ask: AskService | None) -> None:
    """Answer calls one after the other; ends with a ChannelClosedError.

    What there is no memory for fails that call alone.

    Args:
        channel: where they come.
        calls: what answers each.
        ask: carries what these call of other models; None: they can't.

    """
    while True:
        try:
            message = channel.receive()
            with ask.over(channel) if ask else nullcontext():
                head, blobs = calls[message.head[CALL]](message)
            channel.send(head, blobs)
        except (NoRoomError, MemoryError) as failure:
            channel.send({OUT_OF_MEMORY: str(failure) or "no memory"})


def _run(runner: ThreadRunner, message: Message) -> Reply:
    try:
        rows = runner.run_json(message.blobs)
    except UserCallError as failure:
        return {FAILED: str(failure)}, ()
    except ServiceError as error:
        return {ERROR: error_head(error)}, ()
    except BaseException as failure:  # noqa: BLE001  # of user code, sys.exit() too
        name = type(failure).__name__
        if is_out_of_memory(failure):  # a smaller batch may do; see `ThreadRunner`
            return {OUT_OF_MEMORY: name}, ()
        return {FAILED: f"the call raised {name}"}, ()
    return {RUN: [row_head(row) for row in rows]}, blobs_of(rows)


def _prepare(runner: ThreadRunner, message: Message) -> Reply:
    prepared = runner.prepare_json(message.blobs)
    costs = [cost_head(one.cost if isinstance(one, Item) else one) for one in prepared]
    return {PREPARE: costs}, ()


class _Stream:
    """Answers the calls of one stream after the other: a piece for each."""

    def __init__(self, runner: ThreadRunner) -> None:
        self._runner = runner
        self._pieces: Generator[bytes] | None = None

    def calls(self) -> Calls:
        """Return what answers."""
        return {STREAM: self._begin, NEXT: self._next, END: self._end}

    def _begin(self, message: Message) -> Reply:
        self._pieces = self._runner.stream_json(message.blobs[0])
        return self._next(message)

    def _next(self, _message: Message) -> Reply:
        assert self._pieces is not None  # noqa: S101  # it has begun
        try:
            return {NEXT: True}, [next(self._pieces)]
        except StopIteration:
            return {END: True}, ()
        except Exception as failure:  # noqa: BLE001  # as the runner has it
            return row_head(failure), ()

    def _end(self, _message: Message) -> Reply:
        if self._pieces is not None:
            self._pieces.close()
        return {END: True}, ()


if __name__ == "__main__":
    main()
