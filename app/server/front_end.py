"""One of several service processes on one address: what it tells the first process, and asks it."""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from app.core.metrics_sum import report
from app.errors import StartupError, UnhealthyError
from app.runtime.runtime import Runtime
from app.server.channel import Channel, encode

# Between two messages of how this process is: a load balancer would ask as often.
TELL_S = 0.5
# Twice as long as the first process waits for the others.
SUM_S = 2.0
STDIN = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a front end listens: on sockets that it has got from the first process.

    Args:
        number: of the front end, from 1.
        sockets: descriptors of those for all requests.
        probe_sockets: descriptors of those for probes.
        is_successor: whether it takes the place of one that has ended.

    """

    number: int
    sockets: tuple[int, ...]
    probe_sockets: tuple[int, ...] = ()
    is_successor: bool = False

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        lists = (self.sockets, self.probe_sockets)
        numbers = [str(self.number), *(",".join(map(str, one)) for one in lists)]
        return ":".join([*numbers, str(int(self.is_successor))])

    @classmethod
    def parse(cls, written: str) -> Self:
        """Read what the first process has written."""
        number, *lists, is_successor = written.split(":")
        sockets, probes = (tuple(map(int, one.split(","))) if one else () for one in lists)
        return cls(
            number=int(number),
            sockets=sockets,
            probe_sockets=probes,
            is_successor=is_successor == "1",
        )


@dataclass(slots=True, kw_only=True)
class Others:
    """What the first process last said of the other front ends."""

    heard_s: float
    away: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class FrontEnd:
    """Tells the first process how this one is, and answers for all of them.

    Args:
        sock: the connection to the first process.

    """

    is_successor = False  # of one that has ended

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        # To say why the start failed, when the event loop has closed the other.
        self._last = sock.dup()
        self._channel: Channel | None = None  # once it is open
        self._tasks: list[asyncio.Task[None]] = []
        self._sum: asyncio.Future[str] | None = None

    @classmethod
    def inherit(cls) -> Self:
        """Take the connection, this process's standard input, which children would inherit."""
        own = socket.socket(fileno=os.dup(STDIN))
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, STDIN)
        os.close(nothing)
        return cls(own)

    async def open(self, runtime: Runtime, take_signals: Callable[[int], None]) -> None:
        """Begin, once this process listens.

        Args:
            runtime: whose `/metrics`, `/health` and `/ready` tell of all front ends from now on.
            take_signals: called with the number of signals that the first process has got.

        """
        self._runtime = runtime
        self._take_signals = take_signals
        self._clock = asyncio.get_running_loop().time
        self._others = Others(heard_s=self._clock())
        self._channel = channel = await Channel.open(self._socket)
        runtime.all_metrics = self._add_up
        runtime.health_checks.append(self._problems)
        runtime.degraded.append(self._away)
        self._tasks = [
            asyncio.create_task(self._keep_telling()),
            asyncio.create_task(self._listen(channel)),
        ]

    def fail(self, failure: StartupError) -> None:
        """Let the first process say why this one couldn't start."""
        with suppress(OSError):
            self._last.sendall(b"\n" + encode("failed", reason=str(failure)))

    def tell(self) -> None:
        """Tell the first process how this one is, if it has begun to serve."""
        if self._channel is None:
            return
        self._channel.send(
            "state",
            is_open=self._runtime.loaded.is_set() and self._runtime.stored.is_set(),
            is_ready=self._runtime.is_ready(),
            problems=self._runtime.own_problems(),
        )

    async def _keep_telling(self) -> None:
        """Tell from time to time: that it does shows that it isn't stuck."""
        while True:
            self.tell()
            await asyncio.sleep(TELL_S)

    async def _listen(self, channel: Channel) -> None:
        async for message in channel.messages():
            match message["kind"]:
                case "signals":
                    self._take_signals(message["count"])
                case "others":
                    self._others = Others(
                        heard_s=self._clock(), away=message["away"], problems=message["problems"]
                    )
                case "report":
                    channel.send("report", report=report(self._runtime.metrics.registry))
                case "sum" if self._sum is not None and not self._sum.done():
                    self._sum.set_result(message["text"])

    async def _add_up(self) -> bytes:
        """Return the metrics of all front ends; those who ask at once get the same answer."""
        if self._sum is None or self._sum.done():
            self._sum = asyncio.get_running_loop().create_future()
            if self._channel is not None:
                self._channel.send("sum")
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
