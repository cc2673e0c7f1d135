"""What becomes of a request while the service is overloaded: it comes in, or is answered here."""

import logging
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from app.core.metrics import Metrics
from app.core.request_kinds import PathKinds, RequestKind
from app.core.throttle import Throttle
from app.middleware.logging import REQUEST_ID, new_id
from app.server.gate import REASONS, Gate, Place, Reason
from app.server.prepared import PreparedAnswers
from app.server.starting import Start, Starting

log = logging.getLogger(__name__)

LOG_EVERY_S = 1.0
# For so long after a refusal `/ready` says so: longer than a scrape or a check takes to come again.
SHOWN_S = 10.0
BEARER = b"bearer "
MOST_DIGITS = 9
IsAdmin = Callable[[str], bool]
Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What is known of a request before its body.

    Args:
        path: as it was sent, without a query.
        method: in capitals.
        headers: with names in lower case.
        is_kept: whether the connection could stay open.

    """

    path: bytes
    method: bytes
    headers: Headers
    is_kept: bool


class Overload:
    """Lets requests in by the gate, and makes, counts and logs the answers of the others.

    Args:
        gate: decides.
        kinds: of paths.
        metrics: where refusals count.
        is_admin: tells whether a key is known, without a look-up, to be an administrator's.
        is_closing: tells whether connections end with their next answer.
        clock: monotonic seconds.

    """

    def __init__(
        self,
        gate: Gate,
        *,
        kinds: PathKinds,
        metrics: Metrics,
        is_admin: IsAdmin,
        is_closing: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.gate = gate
        self.starting = Starting(gate.begun_limit)
        self.kinds = kinds
        self._metrics = metrics
        self._is_admin = is_admin
        self.is_closing = is_closing
        self._clock = clock
        self._answers = PreparedAnswers()
        self._throttle = Throttle(LOG_EVERY_S, clock=clock)
        self._unlogged = 0
        self._refused_s: float | None = None
        # Created now: `increase`, and so alerts, wouldn't see the event that creates a series.
        self._counters = {
            (kind, reason): metrics.front_refused.labels(kind.value, reason.value)
            for kind, reasons in REASONS.items()
            for reason in reasons
        }

    def let_in(self, kind: RequestKind, headers: Headers, *, opening: int = 0) -> Place | Reason:
        """Return the place of a request, or why there is none; that is counted.

        Args:
            kind: of the request.
            headers: of the request.
            opening: other requests that may be let in before it, for all that is known.

        """
        timeout_s = None
        if kind is RequestKind.INFERENCE and self.gate.has_much_inference:
            timeout_s = _timeout_s(headers)
        reason = self.gate.refuses(kind, now_s=self._clock(), timeout_s=timeout_s, opening=opening)
        if reason is None:
            return Place(kind)
        if self._has_admin_place(headers):
            return Place(RequestKind.ADMIN)
        self.note(kind, reason)
        return reason

    def refusal(self, head: Head) -> bytes:
        """Return the answer to a request that isn't let in."""
        return self._answers.make(
            self.kinds.without_prefix(head.path),
            request_id=_request_id(head.headers),
            retry_after_s=self.gate.retry_after_s,
            is_kept=head.is_kept and not self.is_closing(),
            has_body=head.method != b"HEAD",
        )

    def note(self, kind: RequestKind, reason: Reason) -> None:
        """Count a refusal, and log it unless another was logged a moment ago."""
        self._counters[kind, reason].inc()
        self.gate.note(reason)
        self._refused_s = self._clock()
        self._unlogged += 1
        if self._throttle.passes():
            log.warning(
                "requests_refused",
                extra={
                    "requests": self._unlogged,
                    "kind": kind.value,
                    "reason": reason.value,
                    "in_flight": self.gate.in_flight[kind],
                    "limit": self.gate.limit,
                    "patience_s": round(self.gate.patience.seconds, 2),
                },
            )
            self._unlogged = 0

    def receive(self, place: Place, headers: Headers) -> float:
        """Return the time at which a request came, and note when its deadline passes."""
        now_s = self._clock()
        timeout_s = _timeout_s(headers) if place.kind is RequestKind.INFERENCE else None
        most_s = self.gate.timeout_s
        place.due_s = now_s + (most_s if timeout_s is None else min(timeout_s, most_s))
        return now_s

    def begin(self, place: Place, start: Start | None) -> None:
        """Count a request whose body is complete, and start it when its turn comes.

        Args:
            place: of the request.
            start: starts it; None: that was done, to read a body that came in parts.

        """
        self.gate.begin(place, now_s=self._clock())
        if start is None:
            return
        if place.kind is RequestKind.INFERENCE:
            self.starting.add(place, start)
        else:
            start()

    def end(self, place: Place, *, has_left: bool = False) -> None:
        """Give a place back, and start the next request."""
        now_s = self._clock()
        self.gate.end(place, now_s=now_s, has_left=has_left)
        if self.starting.end(place):
            self._metrics.front_left.inc()
        self.starting.go_on(now_s=now_s, late_s=self.gate.late_s)

    def tick(self) -> None:
        """Let the gate learn, and show what it has learnt; call it a few times a second."""
        now_s = self._clock()
        self.gate.tick(now_s)
        self.starting.limit = self.gate.begun_limit
        self.starting.start_overdue(now_s)
        self.starting.go_on(now_s=now_s, late_s=self.gate.late_s)
        self._metrics.in_flight_limit.set(self.gate.limit)
        for kind, count in self.gate.in_flight.items():
            self._metrics.in_flight.labels(kind.value).set(count)

    def stop(self) -> None:
        """Start all that wait, at the end of the service: from now on `tick` isn't called."""
        self.gate.stop_ticking()
        self.starting.limit = sys.maxsize
        self.starting.go_on(now_s=self._clock(), late_s=self.gate.late_s)

    def is_full(self, opening: int) -> bool:
        """Return whether most requests for inference would be refused now."""
        return self.gate.is_full(now_s=self._clock(), opening=opening)

    def is_refusing(self) -> bool:
        """Return whether requests are refused, or were a moment ago."""
        return self._refused_s is not None and self._clock() < self._refused_s + SHOWN_S

    def _has_admin_place(self, headers: Headers) -> bool:
        if self.gate.refuses(RequestKind.ADMIN, now_s=self._clock()) is not None:
            return False
        key = _key(headers)
        return key is not None and self._is_admin(key)


def _key(headers: Headers) -> str | None:
    """Return the key that a request has, as `http/guard.py` finds it."""
    found = None
    for name, value in headers:
        if name == b"authorization" and value[: len(BEARER)].lower() == BEARER:
            return value[len(BEARER) :].strip().decode("latin-1")
        if name == b"x-api-key":
            found = value.decode("latin-1")
    return found


def _timeout_s(headers: Headers) -> float | None:
    for name, value in headers:
        if name == b"x-request-timeout-ms":
            is_number = len(value) <= MOST_DIGITS and value.isdigit()
            return int(value) / 1000 if is_number else None  # what it isn't, the route refuses
    return None


def _request_id(headers: Headers) -> bytes:
    """Return the client's id where it can be used, or a new one."""
    for name, value in headers:
        if name == b"x-request-id":
            sent = value.decode("latin-1")
            if REQUEST_ID.fullmatch(sent):
                return value
    return new_id().encode()
