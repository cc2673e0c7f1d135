"""Several service processes on one address: the first process, which starts, watches and ends them.

It serves nothing itself, so that it is there for the others whatever requests do.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

from app.core.child import Child
from app.core.metrics import Metrics
from app.errors import StartupError
from app.main import compose
from app.runtime.composition import ACCESS, Composition
from app.server.channel import Channel
from app.server.collecting import Collector
from app.server.drain import OVERDUE_S, Drain
from app.server.front import Front
from app.server.front_end import Place
from app.server.listening import listening_apart
from app.server.server import SIGNALS, print_address
from app.server.spreading import spread
from app.settings import Settings, as_environment

log = logging.getLogger(__name__)

# Between two messages to front ends of how the others are.
TELL_S = 1.0
# A front end that is silent for so long gets no new connections; it tells twice a second.
SILENT_S = 3.0
# For what a process said last to be read.
LAST_WORDS_S = 1.0
STOP_S = 2.0
EXIT_OK, EXIT_UNFINISHED = 0, 70  # EX_SOFTWARE of sysexits.h
MOST_THREADS = 8  # as in one process, see `Settings.thread_count`


def serve_fronts(settings: Settings) -> int:
    """Serve with several processes until a signal comes, and return the exit status.

    Raises:
        StartupError: as `serve.serve`, or a front end ended before it had loaded its models.

    """
    if sys.platform != "linux":
        raise StartupError("FRONT_ENDS: more than one needs Linux")
    chosen, _ = compose(settings)
    count = settings.front_ends
    with ExitStack() as stack:
        sockets = stack.enter_context(
            listening_apart(settings.host, settings.port, processes=count)
        )
        probe_sockets: list[list[socket.socket]] = [[] for _ in range(count)]
        if settings.probe_port is not None:
            probe_sockets = stack.enter_context(
                listening_apart(settings.host, settings.probe_port, "PROBE_PORT", processes=count)
            )
        return asyncio.run(FrontEnds(settings, chosen, sockets, probe_sockets).run())


def shares(settings: Settings) -> dict[str, str]:
    """Return the settings of one front end: its share of the cores and threads."""
    count = settings.front_ends
    cores = max(1, settings.core_count // count)
    threads = min(cores, MOST_THREADS)
    if settings.inference_threads is not None:
        threads = max(1, settings.inference_threads // count)
    return {
        "FRONT_ENDS": "1",
        "ENGINE_THREADS": str(cores),
        "INFERENCE_THREADS": str(threads),
    }


def _command(place: Place) -> list[str]:
    return [sys.executable, "-m", "app", "serve", "--front-end", str(place)]


class FrontEnds:
    """Keeps front ends running, and ends with them.

    Args:
        settings: as read by the entry point.
        chosen: the service's tasks and features.
        sockets: of each front end, already listening.
        probe_sockets: of each front end; none without PROBE_PORT.

    """

    def __init__(
        self,
        settings: Settings,
        chosen: Composition,
        sockets: Sequence[Sequence[socket.socket]],
        probe_sockets: Sequence[Sequence[socket.socket]],
    ) -> None:
        self._settings = settings
        self._chosen = chosen
        self._drain = Drain(delay_s=settings.drain_delay_s, budget_s=settings.shutdown_budget_s)
        self._sockets = [[*own, *probe] for own, probe in zip(sockets, probe_sockets, strict=True)]
        self._metrics = Metrics()
        self._signals = 0
        self._is_ending = asyncio.Event()
        self._is_open = asyncio.Event()  # once the first front end has loaded its models
        self._goes_on = asyncio.Event()  # from then on, or when the end has begun
        self._places: list[int] = []  # of those that get new connections
        self._overdue: asyncio.TimerHandle | None = None
        self._failure: StartupError | None = None
        self._status = EXIT_OK
        self._is_known = False  # whether the address was printed
        self._fronts = [
            self._make(number, own, probe)
            for number, (own, probe) in enumerate(zip(sockets, probe_sockets, strict=True), 1)
        ]
        self._collector = Collector(self._fronts, own=self._metrics)

    def _make(
        self, number: int, own: Sequence[socket.socket], probe: Sequence[socket.socket]
    ) -> Front:
        place = Place(
            number=number,
            sockets=tuple(sock.fileno() for sock in own),
            probe_sockets=tuple(sock.fileno() for sock in probe),
        )
        child = Child(
            name=f"front_end_{number}",
            command=_command(place),
            environment=as_environment(self._settings) | shares(self._settings),
            stop_s=STOP_S,
        )
        return Front(place=place, child=child)

    async def run(self) -> int:
        """Run until a signal comes, or a front end can't start; return the exit status.

        Raises:
            StartupError: a front end couldn't start.

        """
        async with AsyncExitStack() as stack:
            stack.enter_context(self._taking_signals())
            for feature in self._chosen.features:
                shared = await stack.enter_async_context(
                    feature.open_shared(
                        self._settings, metrics=self._metrics, after=self._is_open.wait
                    )
                )
                for front in self._fronts:
                    front.child.environment = {**front.child.environment, **shared}
            has_redis = bool(self._fronts[0].child.environment.get("REDIS_URL"))
            if self._chosen.has(ACCESS) and not has_redis:
                log.warning("counts_per_front_end", extra={"front_ends": len(self._fronts)})
            telling = asyncio.create_task(self._keep_telling())
            try:
                async with asyncio.TaskGroup() as group:
                    for front in self._fronts:
                        group.create_task(self._keep_running(front))
            finally:
                telling.cancel()
                if self._overdue is not None:
                    self._overdue.cancel()
        if self._failure is not None:
            raise self._failure
        return self._status

    @contextmanager
    def _taking_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def take(*_: object) -> None:
            loop.call_soon_threadsafe(self._take_signal)

        before = {number: signal.signal(number, take) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def _keep_running(self, front: Front) -> None:
        """Start a front end, and again whenever it ends."""
        if front is not self._fronts[0]:
            # The first has by then converted models, filled caches, and migrated SQLite.
            await self._goes_on.wait()
        while not self._is_ending.is_set():
            try:
                status = await self._run(front)
            finally:
                await front.child.stop()  # which has ended, unless this failed
            if self._is_ending.is_set():
                break
            if not front.has_opened:
                reason = front.failure or f"front end {front.place.number} ended ({status})"
                self._failure = self._failure or StartupError(reason)
                self._end(1)
                break
            front.child.command = _command(replace(front.place, is_successor=True))
            pause_s = front.child.pause_s()
            self._metrics.front_end_restarts.inc()
            log.error(
                "front_end_ended",
                extra={
                    "front_end": front.place.number,
                    "status": status,
                    "reason": front.failure,
                    "pause_s": pause_s,
                },
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._is_ending.wait()

    async def _run(self, front: Front) -> int | str:
        """Run one process of a front end; return its status, or why it couldn't start."""
        front.failure = None
        ours, theirs = socket.socketpair()
        sockets = (*front.place.sockets, *front.place.probe_sockets)
        with theirs:
            try:
                process = await front.child.start(stdin=theirs.fileno(), pass_fds=sockets)
            except OSError as failure:
                ours.close()
                return type(failure).__name__
        front.channel = await Channel.open(ours)
        listening = asyncio.create_task(self._listen(front, front.channel))
        if self._is_ending.is_set():
            self._pass_on(front)
        status = await process.wait()
        await asyncio.wait({listening}, timeout=LAST_WORDS_S)
        listening.cancel()
        if self._is_ending.is_set() and front.is_listening and status != EXIT_OK:
            self._status = EXIT_UNFINISHED
        self._collector.remember(front)
        front.channel.close()
        front.leave()
        self._look()
        return status

    async def _listen(self, front: Front, channel: Channel) -> None:
        async for message in channel.messages():
            match message["kind"]:
                case "state":
                    self._take_state(front, message)
                case "failed":
                    front.failure = message["reason"]
                case "report":
                    front.measured = message["report"]
                    front.reported.set()
                case "sum":
                    self._collector.answer_soon(channel)

    def _take_state(self, front: Front, message: dict[str, Any]) -> None:
        before = front.is_listening, front.is_ready, front.problems
        front.heard_s = asyncio.get_running_loop().time()
        front.is_listening = True
        front.is_ready = message["is_ready"]
        front.problems = message["problems"]
        if not self._is_known and not self._is_ending.is_set():
            self._is_known = True
            print_address(self._sockets[0][0])
        if message["is_open"]:
            front.has_opened = True
            self._is_open.set()
            self._goes_on.set()
        if before != (front.is_listening, front.is_ready, front.problems):
            self._look()

    async def _keep_telling(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(TELL_S)

    def _look(self) -> None:
        """Decide which front ends get new connections, and tell each of the others."""
        now_s = asyncio.get_running_loop().time()
        listening = [front for front in self._fronts if front.is_listening]
        ready = [f for f in listening if f.is_ready and now_s - f.heard_s < SILENT_S]
        self._metrics.front_ends.set(len(listening))
        # At the start the first: what comes to others would wait until they are started.
        coming = [front for front in self._fronts if front.has_opened] or self._fronts[:1]
        self._spread([self._fronts.index(front) for front in ready or listening or coming])
        away = [front.place.number for front in self._fronts if front not in ready]
        problems = {front.place.number: self._problems(front, now_s) for front in listening}
        for front in listening:
            number = front.place.number
            others = [p for n, found in problems.items() if n != number for p in found]
            if front.channel is not None:
                front.channel.send("others", away=[n for n in away if n != number], problems=others)

    def _problems(self, front: Front, now_s: float) -> list[str]:
        silent_s = now_s - front.heard_s
        is_stuck = silent_s * 1000 > self._settings.health_max_lag_ms
        problems = [f"silent for {silent_s:.0f} s"] if is_stuck else front.problems
        return [f"front_end {front.place.number}: {problem}" for problem in problems]

    def _spread(self, places: list[int]) -> None:
        if places == self._places or self._is_ending.is_set():
            return
        self._places = places
        for sockets in zip(*self._sockets, strict=True):
            spread(sockets, places)

    def _take_signal(self) -> None:
        self._end(self._signals + 1)

    def _end(self, signals: int) -> None:
        """Begin the end, or shorten it, and have all front ends do the same."""
        loop = asyncio.get_running_loop()
        is_ready = any(front.is_ready for front in self._fronts)
        self._signals = signals
        self._drain.begin(loop.time(), was_ready=is_ready)
        self._is_ending.set()
        self._goes_on.set()
        # So that an address ends when the last front end stops listening on it.
        for sock in (sock for own in self._sockets for sock in own):
            sock.close()
        for front in self._fronts:
            self._pass_on(front)
        if self._overdue is not None:
            self._overdue.cancel()
        # A front end that hangs ends itself before that.
        self._overdue = loop.call_later(self._drain.longest_s + OVERDUE_S, self._kill)

    def _pass_on(self, front: Front) -> None:
        """Tell a front end how many signals there were.

        As a message, because it may have got the same signals itself: systemd sends them to all
        processes of a service.
        """
        if front.channel is not None:
            front.channel.send("signals", count=self._signals)
        process = front.child.process
        if not front.is_listening and process is not None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)  # it doesn't read messages yet

    def _kill(self) -> None:
        self._status = EXIT_UNFINISHED
        for front in self._fronts:
            if front.child.is_running and front.child.process is not None:
                log.error("front_end_killed", extra={"front_end": front.place.number})
                with suppress(ProcessLookupError):
                    front.child.process.kill()
