"""Runs a class in processes of its own: what crashes or hangs there harms no other model."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from math import ceil
from time import monotonic
from typing import Any, Final

from app.engines.python.failures import UserCallError, UserCodeError
from app.engines.python.frames import NoRoomError
from app.engines.python.json_forms import json_of
from app.engines.python.messages import (
    CHECK,
    COST,
    FAILED,
    OUT_OF_MEMORY,
    PREPARE,
    RUN,
    Start,
    read_failure,
    read_rows,
)
from app.engines.python.model_messages import ERROR, read_error
from app.engines.python.model_process import MAX_LOAD_S, ModelProcess, ProcessEndedError
from app.engines.python.models import CallModel
from app.engines.python.runner import Answer, Item
from app.engines.python.spawning import End
from app.engines.stream_slots import UNLOADED
from app.errors import ModelCrashedError, ModelNotReadyError, NotReadyError, StartupError

# A call that finds no process waits for one that is about to be free.
RESTARTING: Final = "The model's process has ended and is being started again."
Hear = Callable[[End], None]


def open_processes(start: Start, call_model: CallModel) -> "ProcessRunner":
    """Start the processes of a class, and wait until each has loaded it.

    Raises:
        StartupError: as the class's load.

    """
    runner = ProcessRunner(start, call_model)
    try:
        runner.wait_until_loaded()
    except StartupError:
        runner.close()
        raise
    return runner


class ProcessRunner:
    """Hands calls to processes that are free.

    Args:
        start: what each loads.
        call_model: carries the class's calls of other models.

    """

    def __init__(self, start: Start, call_model: CallModel) -> None:
        self._timeout_s = start.options.timeout_s
        self._changed = threading.Condition()
        self._is_closed = False
        self._unheard: deque[End] = deque(maxlen=64)
        self._hear: Hear = self._unheard.append
        self.processes = [
            ModelProcess(
                start,
                number=number,
                on_change=self._wake,
                on_end=self._tell,
                call_model=call_model,
            )
            for number in range(start.options.workers)
        ]
        self.preparing: Executor | None = None

    def wait_until_loaded(self) -> None:
        """Wait for all processes.

        Raises:
            StartupError: one can't load the class.

        """
        until_s = monotonic() + MAX_LOAD_S
        for process in self.processes:
            process.settled.wait(max(0.0, until_s - monotonic()))
            if process.refusal is not None:
                raise process.refusal
        facts = self.processes[0].facts
        if facts is None:
            raise UserCodeError(f"not loaded within {MAX_LOAD_S:.0f} s")
        self.facts = facts
        if facts.has_cost:
            # Its `cost` is asked there, and may hang: it mustn't keep threads of other models.
            self.preparing = ThreadPoolExecutor(1, thread_name_prefix="prepare")

    @property
    def ready(self) -> int:
        """How many processes can take calls."""
        return sum(process.is_ready for process in self.processes)

    def tell_ends(self, hear: Hear) -> None:
        """Have ends of processes told, also those that were before."""
        self._hear = hear
        while self._unheard:
            hear(self._unheard.popleft())

    def _tell(self, end: End) -> None:
        self._hear(end)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _take(self) -> ModelProcess | None:
        """Wait for a free process; None where none is up, or none is free in time."""
        until_s = monotonic() + self._timeout_s
        with self._changed:
            while True:
                up = [process for process in self.processes if process.is_ready]
                free = [process for process in up if not process.is_busy]
                left_s = until_s - monotonic()
                if not up or (not free and left_s <= 0):
                    return None
                if free:
                    free[0].is_busy = True
                    return free[0]
                self._changed.wait(left_s)

    def _give_back(self, process: ModelProcess) -> None:
        with self._changed:
            process.is_busy = False
            self._changed.notify()

    def prepare(self, values: Sequence[Any]) -> list[Item | Exception]:
        """Ask for the cost of each, where the class has one; it validates them when it runs."""
        contents = [json_of(value) for value in values]
        if not self.facts.has_cost:
            return [Item(value=content, cost=1) for content in contents]
        process = next((process for process in self.processes if process.is_ready), None)
        try:
            if process is None:
                return [self._restarting() for _ in contents]
            head = process.ask(PREPARE, contents).head
        except ProcessEndedError as ended:
            return [self._crashed(ended) for _ in contents]
        except NoRoomError as failure:
            head = {OUT_OF_MEMORY: str(failure)}
        if OUT_OF_MEMORY in head:
            return [read_failure(head) for _ in contents]
        return [
            Item(value=content, cost=cost[COST]) if COST in cost else read_failure(cost)
            for content, cost in zip(contents, head[PREPARE], strict=True)
        ]

    def run(self, items: Sequence[Item]) -> list[Answer | Exception]:
        """Have a process run them; if that ends, each has this error: none is run again.

        Raises:
            UserCallError: the class failed on all of them together.
            ServiceError: a model that it calls did.
            MemoryError: a smaller batch may do.

        """
        process = self._take()
        if process is None:
            return [self._restarting() for _ in items]
        try:
            answer = process.call(RUN, [item.value for item in items])
        except ProcessEndedError as ended:
            return [self._crashed(ended) for _ in items]
        except NoRoomError as failure:
            raise MemoryError(str(failure)) from failure
        finally:
            self._give_back(process)
        if OUT_OF_MEMORY in answer.head:
            raise MemoryError(answer.head[OUT_OF_MEMORY])
        if ERROR in answer.head:  # of a model that the class calls
            raise read_error(answer.head[ERROR])
        if FAILED in answer.head:
            raise UserCallError(answer.head[FAILED])
        return read_rows(answer)

    def stream(self, value: Any) -> Generator[bytes]:  # noqa: ANN401  # parsed JSON
        """Yield the pieces of an answer, from the process with the fewest streams.

        Raises:
            ModelNotReadyError, ModelCrashedError: there is no process, or it ends.
            NotReadyError: the model is closed.
            UserCallError, InvalidRequestError: of the class, or of the item.

        """
        up = [process for process in self.processes if process.is_ready]
        if not up:
            raise self._restarting()
        process = min(up, key=lambda one: one.streams)
        process.streams += 1
        try:
            yield from process.stream(json_of(value))
        except ProcessEndedError as ended:
            raise self._crashed(ended) from None
        except NoRoomError as failure:
            raise UserCallError(str(failure)) from failure
        finally:
            process.streams -= 1

    def retry_after_s(self) -> int:
        """Return after which time a process may be back: as long as it took to load."""
        return max(1, ceil(max(process.load_s for process in self.processes)))

    def _restarting(self) -> ModelNotReadyError | NotReadyError:
        if self._is_closed:
            return NotReadyError(UNLOADED, retry_after_s=1)
        return ModelNotReadyError(RESTARTING, retry_after_s=self.retry_after_s())

    def _crashed(self, ended: ProcessEndedError) -> ModelCrashedError | NotReadyError:
        if self._is_closed:
            return NotReadyError(UNLOADED, retry_after_s=1)
        detail = None
        if ended.end is End.HUNG:
            detail = "The model's process did not answer in time, and is being started again."
        return ModelCrashedError(detail, retry_after_s=self.retry_after_s())

    def check(self) -> str | None:
        """Ask the class in each process that is up; return the first thing that is wrong."""
        for process in self.processes:
            try:
                problem: str | None = process.ask(CHECK).head.get(CHECK)
            except (ProcessEndedError, NoRoomError):
                continue  # `/ready` says so, or nothing can be said
            if problem:
                return problem
        return None

    def close(self) -> None:
        """End the processes, and with an error what they run."""
        self._is_closed = True
        for process in self.processes:
            process.close()
        if self.preparing is not None:
            self.preparing.shutdown(wait=False, cancel_futures=True)
