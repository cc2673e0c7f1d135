"""Which requests are refused before they cost anything, because there are too many."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from app.core.request_kinds import RequestKind
from app.server.patience import Patience
from app.server.service_rate import ServiceRate

# Between two looks at what was learnt.
INTERVAL_S = 0.25
# So many are always let in: with fewer an engine might have nothing to do. Two batches of eight
# run on two cores, and two wait.
LEAST = 32
# Of the clients' patience, that a request should wait: it is a mean, and some wait twice as long.
SHARE = 0.5
# Seconds of work that have begun: enough for batches to be cut by length, and for a batch of a GPU.
BEGUN_S = 0.25
# Until a rate is known.
BEGUN = 128
# For those who look why it is full.
ADMIN_PLACES = 8
# An event loop that is later than this answers nothing in time.
LATE_S = 2.0
DEADLINE_PASSED = 504
ANSWERED = range(200, 300)


class Reason(StrEnum):
    """Why a request is refused; a label of a metric."""

    FULL = "full"  # MAX_IN_FLIGHT
    SLOW = "slow"  # it would be answered too late
    LATE = "late"  # the event loop is
    ARRIVING = "arriving"  # too many bodies are on their way


REASONS: Mapping[RequestKind, tuple[Reason, ...]] = MappingProxyType(
    {
        RequestKind.INFERENCE: tuple(Reason),
        RequestKind.STREAM: (Reason.FULL, Reason.ARRIVING),
        RequestKind.OTHER: (Reason.FULL, Reason.LATE, Reason.ARRIVING),
        RequestKind.PROBE: (Reason.ARRIVING,),
        RequestKind.ADMIN: (Reason.FULL, Reason.ARRIVING),
    }
)


@dataclass(slots=True, eq=False)
class Place:
    """One request that was let in."""

    kind: RequestKind
    begun_s: float | None = None  # when its body was complete
    is_arriving: bool = False  # its body is on its way, and counts
    status: int = 0  # of its answer, once that has begun
    due_s: float = math.inf  # when its deadline passes


class Gate:
    """Counts requests in flight by their kind, and refuses those that there is no place for.

    A request is in flight from when its body is complete until its answer is. It has no clock:
    callers pass the time, in monotonic seconds.

    Args:
        max_in_flight: of each kind, whatever was learnt; and of bodies that are on their way.
        timeout_s: after which a request has no answer any more.
        now_s: the time.

    """

    def __init__(self, *, max_in_flight: int, timeout_s: float, now_s: float) -> None:
        self.in_flight = dict.fromkeys(RequestKind, 0)
        self.arriving = 0
        self.rate = ServiceRate()
        self.patience = Patience(timeout_s)
        self.timeout_s = timeout_s
        self.limit = max_in_flight  # of inference, as it was learnt
        self._max = max_in_flight
        self._ticked_s = now_s
        self._is_refusing = False  # in this interval
        self._shortest_s = self._shortest_before_s = math.inf  # timeouts asked for: now, before

    def refuses(
        self,
        kind: RequestKind,
        *,
        now_s: float,
        timeout_s: float | None = None,
        opening: int = 0,
    ) -> Reason | None:
        """Return why a request is refused; None: it may come in.

        Args:
            kind: of the request.
            now_s: the time.
            timeout_s: what its client asked for, if it did.
            opening: other requests that may be let in before it, for all that is known.

        """
        if timeout_s is not None and timeout_s < self._shortest_s:
            self._shortest_s = timeout_s
        return self._judge(kind, now_s=now_s, timeout_s=timeout_s, opening=opening)

    def is_full(self, *, now_s: float, opening: int = 0) -> bool:
        """Return whether a request for inference would be refused, if it is as urgent as others.

        Args:
            now_s: the time.
            opening: other requests that may be let in before it, for all that is known.

        """
        shortest_s = min(self._shortest_s, self._shortest_before_s)
        kind = RequestKind.INFERENCE
        return self._judge(kind, now_s=now_s, timeout_s=shortest_s, opening=opening) is not None

    @property
    def begun_limit(self) -> int:
        """How many requests for inference should be at work at once."""
        rate = self.rate.per_second
        return BEGUN if rate is None else min(self._max, max(LEAST, int(rate * BEGUN_S)))

    @property
    def has_much_inference(self) -> bool:
        """Whether a timeout that a client asks for could matter."""
        return self.in_flight[RequestKind.INFERENCE] >= LEAST

    @property
    def _has_much(self) -> bool:
        return sum(self.in_flight.values()) >= LEAST

    @property
    def has_much_arriving(self) -> bool:
        """Whether no more bodies may be on their way."""
        return self.arriving >= self._max

    @property
    def late_s(self) -> float:
        """The age from which on a waiting request will hardly be answered in time."""
        return self.patience.seconds * SHARE

    @property
    def retry_after_s(self) -> int:
        """Whole seconds until what is in flight now is done."""
        rate = self.rate.per_second or 0.0
        count = self.in_flight[RequestKind.INFERENCE]
        return max(1, min(60, math.ceil(count / rate))) if rate else 1

    def note(self, reason: Reason) -> None:
        """Note that a request was refused."""
        self._is_refusing = self._is_refusing or reason is Reason.SLOW

    def arrive(self, place: Place) -> None:
        """Count a body that is on its way."""
        place.is_arriving = True
        self.arriving += 1

    def arrived(self, place: Place) -> None:
        """Count a body that was on its way as complete, or as given up."""
        if place.is_arriving:
            place.is_arriving = False
            self.arriving -= 1

    def begin(self, place: Place, *, now_s: float) -> None:
        """Count a request whose body is complete."""
        self.arrived(place)
        place.begun_s = now_s
        self.in_flight[place.kind] += 1

    def end(self, place: Place, *, now_s: float, has_left: bool) -> None:
        """Give a place back.

        Args:
            place: of a request that was answered, or whose client left.
            now_s: the time.
            has_left: whether the client did.

        """
        self.arrived(place)
        if place.begun_s is None:
            return
        self.in_flight[place.kind] -= 1
        if place.kind is RequestKind.INFERENCE:
            self._learn_from(place, age_s=now_s - place.begun_s, has_left=has_left)
        place.begun_s = None

    def tick(self, now_s: float) -> None:
        """Learn, when an interval is over; call it a few times in each."""
        seconds = now_s - self._ticked_s
        if seconds < INTERVAL_S:
            return
        self._ticked_s = now_s
        self.rate.learn(seconds=seconds, in_flight=self.in_flight[RequestKind.INFERENCE])
        self.patience.learn(seconds=seconds, is_refusing=self._is_refusing)
        self._is_refusing = False
        self._shortest_before_s, self._shortest_s = self._shortest_s, math.inf
        self.limit = self._limit_for(self.patience.seconds)

    def stop_ticking(self) -> None:
        """From now on nobody calls `tick`, so that it says nothing about the event loop."""
        self._ticked_s = math.inf

    def _judge(
        self, kind: RequestKind, *, now_s: float, timeout_s: float | None, opening: int
    ) -> Reason | None:
        count = self.in_flight[kind] + opening
        if count >= self._places_of(kind):
            return Reason.FULL
        if kind is RequestKind.INFERENCE and count >= LEAST and count >= self._limit(timeout_s):
            return Reason.SLOW
        is_late = now_s - self._ticked_s > INTERVAL_S + LATE_S
        if is_late and Reason.LATE in REASONS.get(kind, ()) and self._has_much:
            return Reason.LATE
        return None

    def _learn_from(self, place: Place, *, age_s: float, has_left: bool) -> None:
        if has_left or place.status == DEADLINE_PASSED:
            self.patience.left(age_s)
        elif place.status in ANSWERED:
            self.patience.answered()
            self.rate.answered()
        self.rate.note(self.in_flight[place.kind])

    def _places_of(self, kind: RequestKind) -> float:
        if kind is RequestKind.PROBE:
            return math.inf
        return ADMIN_PLACES if kind is RequestKind.ADMIN else self._max

    def _limit(self, timeout_s: float | None) -> int:
        if timeout_s is None or timeout_s >= self.patience.seconds:
            return self.limit
        return self._limit_for(timeout_s)

    def _limit_for(self, patience_s: float) -> int:
        """Return how many are answered in time; Little's law."""
        rate = self.rate.per_second
        if rate is None:
            return self._max
        return min(self._max, max(LEAST, int(rate * patience_s * SHARE)))
