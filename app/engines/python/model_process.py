"""One process of a model: called, watched, and started again when it ends."""

import logging
import signal
import subprocess
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from app.core.backoff import Backoff
from app.core.call_scope import CallScope, in_scope
from app.core.logs import is_private
from app.engines.python.failures import UserCodeError
from app.engines.python.frames import Channel, ChannelClosedError, Message, NoRoomError
from app.engines.python.messages import (
    CALL,
    END,
    FACTS,
    NEXT,
    OUT_OF_MEMORY,
    REFUSED,
    STREAM,
    Start,
    read_facts,
    read_failure,
    read_refusal,
)
from app.engines.python.model_messages import answer_question, is_question, no_room
from app.engines.python.models import CallModel
from app.engines.python.runner import Facts
from app.engines.python.spawning import End, Spawned, first_place, how_it_ended, read_notes, spawn
from app.errors import StartupError

log = logging.getLogger(__name__)

MAX_LOAD_S: Final = 600.0  # weights may come from a slow disk
# One that served before it ended is started again at once, and soon where it ends again and again:
# it is to be back within 2 s beside its load. One that ends while it loads is tried less and less.
SERVED: Final = Backoff(first_s=0.1, max_s=0.8)
NOT_LOADED: Final = Backoff(first_s=0.5, max_s=30.0)
HEALTHY_S: Final = 60.0  # after so long a run the pauses begin anew
NOTES_S: Final = 0.2  # that a process which hangs has to note where
END_S: Final = 1.0  # that it has to end by itself


class ProcessEndedError(Exception):
    """The process ended before it answered, or didn't answer in time and was ended."""

    def __init__(self, end: End) -> None:
        super().__init__(end.value)
        self.end = end


class ModelProcess:
    """Keeps a process of a class, by a thread of its own.

    The kernel ends a child when the thread that started it ends, so that thread waits for it.

    Args:
        start: what it loads.
        number: among the model's processes.
        on_change: called when it can take calls, and when it can't any more.
        on_end: called with why it ended.
        call_model: carries the class's calls of other models.

    """

    def __init__(
        self,
        start: Start,
        *,
        number: int,
        on_change: Callable[[], None],
        on_end: Callable[[End], None],
        call_model: CallModel,
    ) -> None:
        self.is_busy = False  # guarded by the runner
        self.streams = 0  # that run now, about
        self.load_s = 0.0
        self.facts: Facts | None = None
        self.refusal: StartupError | None = None
        self.settled = threading.Event()  # it has loaded once, or can't
        self._start = start
        self._timeout_s = start.options.timeout_s
        self._name = f"{start.name}-{number}"
        self._fields: dict[str, Any] = {"model": start.name, "number": number}
        self._on_change = on_change
        self._on_end = on_end
        self._call_model = call_model
        self._running: Spawned | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=self._name, daemon=True)
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether it can take calls."""
        running = self._running
        return running is not None and running.is_up

    def call(self, what: str, blobs: Sequence[bytes] = ()) -> Message:
        """Have the class run; one call at a time.

        Raises:
            NoRoomError: there is no memory for what is sent, or for the answer.
            ProcessEndedError: it ended, or didn't answer in time and was ended.

        """
        running = self._current()
        with running.call_lock:
            return self._ask(running, running.calls, what, blobs)

    def ask(self, what: str, blobs: Sequence[bytes] = ()) -> Message:
        """Ask what doesn't wait for calls that run; raises as `call`."""
        running = self._current()
        if not running.side_lock.acquire(timeout=self._timeout_s):
            raise ProcessEndedError(End.HUNG)
        try:
            return self._ask(running, running.others, what, blobs)
        finally:
            running.side_lock.release()

    def stream(self, content: bytes) -> Generator[bytes]:
        """Yield the pieces of an answer as JSON; closing it closes the class's generator.

        Raises:
            ProcessEndedError, NoRoomError: as `call`, for each piece.
            UserCallError, InvalidRequestError: of the class, or of the item.

        """
        running = self._current()
        try:
            channel = running.streams.popleft()  # as many as the engine has slots
        except IndexError:  # it has ended meanwhile
            raise ProcessEndedError(running.end) from None
        is_open = True
        try:
            message = self._ask(running, channel, STREAM, [content])
            while NEXT in message.head:
                yield message.blobs[0]
                message = self._ask(running, channel, NEXT, ())
            is_open = OUT_OF_MEMORY in message.head  # a piece had no room; others may follow
            if END not in message.head:
                raise read_failure(message.head)
        finally:
            if is_open and running.is_up:
                with suppress(ProcessEndedError, NoRoomError):
                    self._ask(running, channel, END, ())
            running.give_back(channel)

    def _current(self) -> Spawned:
        running = self._running
        if running is None or not running.is_up:
            raise ProcessEndedError(End.CRASHED)
        return running

    def _ask(
        self, running: Spawned, channel: Channel, what: str, blobs: Sequence[bytes]
    ) -> Message:
        until_s = monotonic() + self._timeout_s
        if not running.is_up:
            raise ProcessEndedError(running.end)
        try:
            channel.send({CALL: what}, blobs, until_s=until_s)
            return self._receive(channel, until_s)
        except TimeoutError:
            running.end = End.HUNG
            self._note_place(running)
        except ChannelClosedError:
            pass
        self._set_up(running, is_up=False)
        running.kill()
        raise ProcessEndedError(running.end)

    def _receive(self, channel: Channel, until_s: float) -> Message:
        """Receive an answer; what the process asks meanwhile is answered first.

        The time that other models take is theirs: their calls have the deadline of the requests.

        Raises:
            TimeoutError, ChannelClosedError: as the channel.

        """
        message = channel.receive(until_s=until_s)
        while is_question(message):
            asked_s = monotonic()
            answer = answer_question(message, self._call_model)
            until_s += monotonic() - asked_s
            try:
                channel.send(*answer, until_s=until_s)
            except NoRoomError:  # it waits for an answer
                channel.send(*no_room(), until_s=until_s)
            message = channel.receive(until_s=until_s)
        return message

    def _note_place(self, running: Spawned) -> None:
        """Let a process that hangs note where, unless it is stopped."""
        with suppress(ProcessLookupError):
            running.process.send_signal(signal.SIGUSR1)
        self._closing.wait(NOTES_S)

    def _keep(self) -> None:
        """Start the process, wait for its end, and start it again, until it is closed."""
        is_private.set(True)  # the variable's name says it
        failures, had_served = 0, True
        while not self._closing.is_set():
            began_s = monotonic()
            has_served = False
            try:
                has_served = self._run_once(began_s)
            except StartupError as failure:
                if not self.settled.is_set():
                    self.refusal = failure
                    self.settled.set()
                    return
                if not self._closing.is_set():
                    self._tell_not_loaded(failure)
            except Exception:
                log.exception("model_process_unwatched", extra=self._fields)
                if not self.settled.is_set():
                    self.refusal = UserCodeError("its process could not be started; see the log")
                    self.settled.set()
                    return
            if has_served != had_served or monotonic() - began_s > HEALTHY_S:
                failures = 0
            self._closing.wait(_pause_s(failures, has_served=has_served))
            failures, had_served = failures + 1, has_served

    def _run_once(self, began_s: float) -> bool:
        """Run the process to its end; return whether it served.

        Raises:
            StartupError: it can't load the class.

        """
        running = self._running = spawn(self._start, self._name)
        if self._closing.is_set():  # meanwhile, and `close` has ended the one before
            running.kill()
        has_served = False
        try:
            facts = self._load(running)
            if self.facts is not None and facts != self.facts:
                raise UserCodeError(
                    "the class is another one than at the start: start the service again, or put"
                    " its file back"
                )
            has_served = True
            self.facts, self.load_s = facts, monotonic() - began_s
            if self.settled.is_set():
                fields = self._fields | {"seconds": round(self.load_s, 2)}
                log.info("model_process_ready", extra=fields)
            self._set_up(running, is_up=True)
            self.settled.set()
            running.process.wait()
        finally:
            self._set_up(running, is_up=False)
            running.kill()
            running.process.wait()
            try:
                if has_served and not self._closing.is_set():
                    self._tell_end(running)
            finally:
                running.close()
        return has_served

    def _load(self, running: Spawned) -> Facts:
        """Have it load the class.

        Raises:
            StartupError: it can't.

        """
        until_s = monotonic() + MAX_LOAD_S
        try:
            running.calls.send(self._start.head(), until_s=until_s)
            with in_scope(CallScope(until_s=until_s)):
                head = self._receive(running.calls, until_s).head
        except TimeoutError:
            running.end = End.HUNG
            raise UserCodeError(f"not loaded within {MAX_LOAD_S:.0f} s") from None
        except ChannelClosedError:
            with suppress(subprocess.TimeoutExpired):
                running.process.wait(END_S)
            how = how_it_ended(running.process.returncode)
            place = first_place(read_notes(running.notes))
            raise UserCodeError(f"its process ended while it loaded: {how}{place}") from None
        if REFUSED in head:
            raise read_refusal(head[REFUSED])
        return read_facts(head[FACTS])

    def _set_up(self, running: Spawned, *, is_up: bool) -> None:
        running.is_up = is_up
        self._on_change()

    def _tell_end(self, running: Spawned) -> None:
        """Log why it ended, and count it."""
        how = how_it_ended(running.process.returncode)
        fields = self._fields | {"reason": running.end.value, "how": how}
        if notes := read_notes(running.notes):
            fields["traceback"] = notes
        log.error("model_process_ended", extra=fields)
        self._on_end(running.end)

    def _tell_not_loaded(self, failure: StartupError) -> None:
        cause = failure.__cause__
        fields = self._fields | {"reason": failure.line}
        log.error("model_process_not_loaded", exc_info=cause, extra=fields)
        self._on_end(End.NOT_LOADED)

    def close(self) -> None:
        """End it: by itself within `END_S`, or by force."""
        self._closing.set()
        running = self._running
        if running is not None:
            running.calls.end()
            with suppress(subprocess.TimeoutExpired):
                running.process.wait(END_S)
            running.kill()
        self._thread.join(END_S)


def _pause_s(before: int, *, has_served: bool) -> float:
    """Return the pause after an end, with so many of its kind just before."""
    if not has_served:
        return NOT_LOADED.pause_s(before + 1)
    return SERVED.pause_s(before) if before else 0.0
