"""One of several service processes on one address: what it tells the first process, and asks it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from app.errors import UnhealthyError
from app.runtime.runtime import Runtime
from app.server.member import Member

# Twice as long as the first process waits for the others.
SUM_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a front end listens: on sockets that it has got from the first process.

    Args:
        number: of the front end, from 1.
        sockets: descriptors of those for all requests.
        probe_sockets: descriptors of those for probes.
        is_successor: whether it takes the place of one that has ended.
        engine: a descriptor that names the Unix socket of the engine's process; None: there is
            none, the front end has all models itself.

    """

    number: int
    sockets: tuple[int, ...]
    probe_sockets: tuple[int, ...] = ()
    is_successor: bool = False
    engine: int | None = None

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        engines = () if self.engine is None else (self.engine,)
        lists = (self.sockets, self.probe_sockets, engines)
        numbers = [str(self.number), *(",".join(map(str, one)) for one in lists)]
        return ":".join([*numbers, str(int(self.is_successor))])

    @classmethod
    def parse(cls, written: str) -> Self:
        """Read what the first process has written."""
        number, *lists, is_successor = written.split(":")
        sockets, probes, engines = (tuple(map(int, one.split(","))) if one else () for one in lists)
        return cls(
            number=int(number),
            sockets=sockets,
            probe_sockets=probes,
            is_successor=is_successor == "1",
            engine=engines[0] if engines else None,
        )

    @property
    def engine_at(self) -> str | None:
        """The address of the engine's socket, which has no name in the file system."""
        return None if self.engine is None else f"/proc/self/fd/{self.engine}"


@dataclass(slots=True, kw_only=True)
class Others:
    """What the first process last said of the other front ends."""

    heard_s: float
    away: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class FrontEnd(Member):
    """Tells the first process how this one is, and answers for all of them."""

    is_successor = False  # of one that has ended
    _sum: asyncio.Future[str] | None = None

    async def open(self, runtime: Runtime, take_signals: Callable[[int], None]) -> None:
        """Begin, once this process listens.

        Args:
            runtime: whose `/metrics`, `/health` and `/ready` tell of all front ends from now on.
            take_signals: called with the number of signals that the first process has got.

        """
        self._take_signals = take_signals
        self._clock = asyncio.get_running_loop().time
        self._others = Others(heard_s=self._clock())
        runtime.all_metrics = self._add_up
        runtime.health_checks.append(self._problems)
        runtime.degraded.append(self._away)
        await self.join(runtime)

    def take(self, message: dict[str, Any]) -> None:
        """Take what the first process says to front ends."""
        match message["kind"]:
            case "signals":
                self._take_signals(message["count"])
            case "others":
                self._others = Others(
                    heard_s=self._clock(), away=message["away"], problems=message["problems"]
                )
            case "sum" if self._sum is not None and not self._sum.done():
                self._sum.set_result(message["text"])

    async def _add_up(self) -> bytes:
        """Return the metrics of all front ends; those who ask at once get the same answer."""
        if self._sum is None or self._sum.done():
            self._sum = asyncio.get_running_loop().create_future()
            self.send("sum")
        try:
            async with asyncio.timeout(SUM_S):
                return (await asyncio.shield(self._sum)).encode()
        except TimeoutError:
            self._sum = None
            silent = "front_ends: the first process is silent"
            raise UnhealthyError(silent, extensions={"checks": [silent]}) from None

    def _problems(self) -> list[str]:
        silent_s = self._clock() - self._others.heard_s
        if silent_s * 1000 > self._runtime.policy.health_max_lag_ms:
            return [f"front_ends: the first process is silent for {silent_s:.0f} s"]
        return self._others.problems

    def _away(self) -> str | None:
        away = ",".join(map(str, self._others.away))
        return f"front_ends:{away}" if away else None
