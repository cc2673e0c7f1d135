"""Several service processes on one address: the first process, which starts, watches and ends them.

It serves nothing itself, so that it is there for the others whatever requests do.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager, AsyncExitStack, suppress
from functools import partial

from app.core.metrics import Metrics
from app.errors import StartupError
from app.runtime.applying import OF_SEVERAL
from app.runtime.composition import ACCESS, Composition
from app.server.collecting import Collector
from app.server.drain import OVERDUE_S, Drain
from app.server.front import Front, Watched
from app.server.keeping import Keeper
from app.server.processes import Listening, make_engine, make_front
from app.server.server import print_address
from app.server.signals import handled
from app.server.telling import Telling
from app.settings import Settings

log = logging.getLogger(__name__)

# For the engine's process to close its models, when no front end needs them any more.
ENGINE_END_S = 5.0
EXIT_OK, EXIT_UNFINISHED = 0, 70  # EX_SOFTWARE of sysexits.h


class FrontEnds:
    """Keeps front ends and the engine's process running, and ends with them.

    Args:
        settings: as read by the entry point.
        chosen: the service's tasks and features.
        listening: the sockets.

    """

    def __init__(self, settings: Settings, chosen: Composition, listening: Listening) -> None:
        self._settings = settings
        self._chosen = chosen
        self._drain = Drain(delay_s=settings.drain_delay_s, budget_s=settings.shutdown_budget_s)
        by_front = zip(listening.fronts, listening.probes, strict=True)
        self._sockets = [[*own, *probe] for own, probe in by_front]
        self._metrics = Metrics()
        self._signals = 0
        self._is_ending = asyncio.Event()
        self._is_open = asyncio.Event()  # once the first front end has loaded its models
        self._goes_on = asyncio.Event()  # from then on, or when the end has begun
        self._are_fronts_over = asyncio.Event()
        self._overdue: asyncio.TimerHandle | None = None
        self._failure: StartupError | None = None
        self._status = EXIT_OK
        self._is_known = False  # whether the address was printed
        self._fronts = [
            make_front(settings, number, listening) for number in range(1, len(self._sockets) + 1)
        ]
        self._engine = make_engine(settings, listening.engine) if listening.engine else None
        self._watched: list[Watched] = [*self._fronts, *([self._engine] if self._engine else [])]
        self._collector = Collector(self._watched, own=self._metrics)
        self._telling = Telling(
            self._fronts,
            self._watched,
            self._sockets,
            metrics=self._metrics,
            max_lag_ms=settings.health_max_lag_ms,
        )

    async def run(self) -> int:
        """Run until a signal comes, or a process can't start; return the exit status.

        Raises:
            StartupError: a process couldn't start.

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
            telling = asyncio.create_task(self._telling.keep_on())
            try:
                async with asyncio.TaskGroup() as group:
                    if self._engine is not None:
                        group.create_task(self._keep_engine(self._engine))
                    fronts = [group.create_task(self._keep_front(f)) for f in self._fronts]
                    group.create_task(self._end_engine(fronts))
            finally:
                telling.cancel()
                if self._overdue is not None:
                    self._overdue.cancel()
        if self._failure is not None:
            raise self._failure
        return self._status

    def _taking_signals(self) -> AbstractContextManager[None]:
        loop = asyncio.get_running_loop()

        def hang_up(*_: object) -> None:
            loop.call_soon_threadsafe(self._take_signal if os.isatty(0) else refuse_catalogue)

        return handled(end=lambda *_: loop.call_soon_threadsafe(self._take_signal), hang_up=hang_up)

    async def _keep_front(self, front: Front) -> None:
        if front is not self._fronts[0]:
            # The first has by then converted models, filled caches, and migrated SQLite.
            await self._goes_on.wait()
        keeper = Keeper(
            front,
            collector=self._collector,
            restarts=self._metrics.front_end_restarts,
            on_start=partial(self._greet, front),
            on_state=partial(self._note_state, front),
            on_end=partial(self._note_end, front),
        )
        self._note_failure(await keeper.keep(self._is_ending))

    async def _keep_engine(self, engine: Watched) -> None:
        keeper = Keeper(
            engine,
            collector=self._collector,
            restarts=self._metrics.engine_restarts,
            on_start=lambda: self._end_if_late(engine),
            on_state=lambda has_changed: self._telling.look() if has_changed else None,
            on_end=lambda _: None,
        )
        # Until the last front end has ended: they need it for what is in flight.
        self._note_failure(await keeper.keep(self._are_fronts_over))

    async def _end_engine(self, fronts: Sequence[asyncio.Task[None]]) -> None:
        """End the engine's process when all front ends have ended."""
        await asyncio.wait(fronts)
        self._are_fronts_over.set()
        engine = self._engine
        if engine is None or engine.child.process is None:
            return
        if engine.channel is not None:
            engine.channel.send("end")
        with suppress(TimeoutError):
            async with asyncio.timeout(ENGINE_END_S):
                await engine.child.process.wait()
        await engine.child.stop()

    def _end_if_late(self, engine: Watched) -> None:
        """End an engine's process that was restarted while the last front end ended."""
        process = engine.child.process
        if self._are_fronts_over.is_set() and process is not None:
            with suppress(ProcessLookupError):
                process.kill()

    def _note_failure(self, reason: str | None) -> None:
        """End the service, where a process can't start."""
        if reason is not None and not self._is_ending.is_set():
            self._failure = self._failure or StartupError(reason)
            self._end(1)

    def _note_end(self, front: Front, status: int) -> None:
        if self._is_ending.is_set() and front.is_listening and status != EXIT_OK:
            self._status = EXIT_UNFINISHED
        front.is_listening = front.is_ready = False
        self._telling.look()

    def _greet(self, front: Front) -> None:
        if self._is_ending.is_set():
            self._pass_on(front)

    def _note_state(self, front: Front, has_changed: bool) -> None:  # noqa: FBT001  # all that is told
        if not self._is_known and not self._is_ending.is_set():
            self._is_known = True
            print_address(self._sockets[0][0])
        if front.has_opened:
            self._is_open.set()
            self._goes_on.set()
        if has_changed:
            self._telling.look()

    def _take_signal(self) -> None:
        self._end(self._signals + 1)

    def _end(self, signals: int) -> None:
        """Begin the end, or shorten it, and have all front ends do the same."""
        loop = asyncio.get_running_loop()
        is_ready = any(front.is_ready for front in self._fronts)
        self._signals = signals
        self._drain.begin(loop.time(), was_ready=is_ready)
        self._is_ending.set()
        self._telling.end()
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
                log.error("front_end_killed", extra=front.fields)
                with suppress(ProcessLookupError):
                    front.child.process.kill()


def refuse_catalogue() -> None:
    """Say at SIGHUP that the catalogue isn't read anew: each process has models of its own."""
    log.error("catalogue_refused", extra={"reason": OF_SEVERAL})
