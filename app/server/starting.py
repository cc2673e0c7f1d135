"""Which of the requests that were let in goes on next.

A request that has begun costs a task, threads and a place in a model's queue, whether its client
waits for the answer or not. So only as many begin as keep the engine busy; the others wait here,
where they cost nothing, and nothing when their client leaves.
"""

from collections.abc import Callable
from itertools import islice

from app.server.gate import Place

Start = Callable[[], None]

# Of those whose deadline has passed, in one turn of the event loop: each costs as much as any.
OVERDUE_AT_ONCE = 64


class Starting:
    """Starts requests, or lets them wait until others have ended. It has no clock.

    First come, first served; the last come first while the oldest is late: then those that have
    just come can still be answered in time, and with the order of arrival none would be.

    Args:
        limit: how many go on at once, until more is known.

    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._going_on: set[Place] = set()
        self._waiting: dict[Place, Start] = {}  # by arrival

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def going_on(self) -> int:
        """How many were started and haven't ended."""
        return len(self._going_on)

    def add(self, place: Place, start: Start) -> None:
        """Start a request, now or when its turn comes."""
        if len(self._going_on) < self.limit:
            self._going_on.add(place)
            start()
        else:
            self._waiting[place] = start

    def end(self, place: Place) -> bool:
        """Take a request out; return whether it was still waiting."""
        self._going_on.discard(place)
        return self._waiting.pop(place, None) is not None

    def go_on(self, *, now_s: float, late_s: float) -> None:
        """Start those that there is room for now.

        Args:
            now_s: the time.
            late_s: for how long the oldest may wait while the order of arrival holds.

        """
        while self._waiting and len(self._going_on) < self.limit:
            place = next(iter(self._waiting))
            if place.begun_s is not None and now_s - place.begun_s > late_s:
                place = next(reversed(self._waiting))
            self._start(place)

    def start_overdue(self, now_s: float) -> None:
        """Start those whose deadline has passed, whether there is room or not: they get a 504."""
        overdue = (place for place in self._waiting if place.due_s <= now_s)
        for place in list(islice(overdue, OVERDUE_AT_ONCE)):
            self._start(place)

    def _start(self, place: Place) -> None:
        start = self._waiting.pop(place)
        self._going_on.add(place)
        start()
