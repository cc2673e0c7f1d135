"""Which front ends get new connections, and what each is told of the others."""

import asyncio
import socket
from collections.abc import Sequence

from app.core.metrics import Metrics
from app.server.front import Front, Watched
from app.server.spreading import spread

# Between two messages to front ends of how the others are.
TELL_S = 1.0
# A front end that is silent for so long gets no new connections; it tells twice a second.
SILENT_S = 3.0


class Telling:
    """Looks at the processes of a service, and tells front ends of each other.

    Args:
        fronts: all front ends, in the order of their places.
        watched: these, and the engine's process.
        sockets: of each front end: its own, and that for probes.
        metrics: where front ends are counted.
        max_lag_ms: after which a process that is silent is stuck.

    """

    def __init__(
        self,
        fronts: Sequence[Front],
        watched: Sequence[Watched],
        sockets: Sequence[Sequence[socket.socket]],
        *,
        metrics: Metrics,
        max_lag_ms: float,
    ) -> None:
        self._fronts = fronts
        self._watched = watched
        self._sockets = sockets
        self._metrics = metrics
        self._max_lag_ms = max_lag_ms
        self._places: list[int] = []  # of those that get new connections
        self._is_ending = False

    async def keep_on(self) -> None:
        """Look again and again, until it is cancelled."""
        while True:
            self.look()
            await asyncio.sleep(TELL_S)

    def end(self) -> None:
        """Choose no more: the sockets are closed."""
        self._is_ending = True

    def look(self) -> None:
        """Decide which front ends get new connections, and tell each of the others."""
        now_s = asyncio.get_running_loop().time()
        listening = [front for front in self._fronts if front.is_listening]
        ready = [f for f in listening if f.is_ready and now_s - f.heard_s < SILENT_S]
        self._metrics.front_ends.set(len(listening))
        # At the start the first: what comes to others would wait until they are started.
        coming = [front for front in self._fronts if front.has_opened] or self._fronts[:1]
        self._spread([self._fronts.index(front) for front in ready or listening or coming])
        away = [front.place.number for front in self._fronts if front not in ready]
        telling = [one for one in self._watched if one.is_listening]
        problems = {one.name: self._problems(one, now_s) for one in telling}
        for front in listening:
            number = front.place.number
            others = [p for name, found in problems.items() if name != front.name for p in found]
            if front.channel is not None:
                front.channel.send("others", away=[n for n in away if n != number], problems=others)

    def _problems(self, one: Watched, now_s: float) -> list[str]:
        silent_s = now_s - one.heard_s
        is_stuck = silent_s * 1000 > self._max_lag_ms
        problems = [f"silent for {silent_s:.0f} s"] if is_stuck else one.problems
        return [f"{one.name}: {problem}" for problem in problems]

    def _spread(self, places: list[int]) -> None:
        if places == self._places or self._is_ending:
            return
        self._places = places
        for sockets in zip(*self._sockets, strict=True):
            spread(sockets, places)
