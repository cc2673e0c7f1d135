"""Which requests are refused when there are too many: the logic, with the time passed in."""

from math import ceil

import pytest

from app.core.request_kinds import PathKinds, RequestKind
from app.server.gate import (
    ADMIN_PLACES,
    BEGUN,
    INTERVAL_S,
    LATE_S,
    LEAST,
    SHARE,
    Gate,
    Place,
    Reason,
)
from app.server.patience import LEAST_S, NOTICEABLE, Patience
from app.server.service_rate import ENOUGH_S, SATURATED, ServiceRate

pytestmark = pytest.mark.core

INFERENCE, STREAM, OTHER = RequestKind.INFERENCE, RequestKind.STREAM, RequestKind.OTHER
MAX = 1_024


def make_gate(max_in_flight: int = MAX) -> Gate:
    return Gate(max_in_flight=max_in_flight, timeout_s=30, now_s=0.0)


def fill(gate: Gate, count: int, kind: RequestKind = INFERENCE, now_s: float = 0.0) -> list[Place]:
    places = [Place(kind) for _ in range(count)]
    for place in places:
        assert gate.refuses(kind, now_s=now_s) is None
        gate.begin(place, now_s=now_s)
    return places


class Clients:
    """A service that answers so many a second, and clients that wait so long, offered far more."""

    def __init__(self, gate: Gate, *, per_second: float, patience_s: float) -> None:
        self.gate = gate
        self.now_s = 0.0
        self.good = self.refused = self.left = 0
        self._waiting: list[Place] = []
        self._per_second = per_second
        self._patience_s = patience_s

    def storm(self, seconds: float, *, offered: float) -> None:
        step_s, due, sent = 0.05, 0.0, 0.0
        for _ in range(ceil(seconds / step_s)):
            self.now_s += step_s
            due = min(due + self._per_second * step_s, self._per_second)
            sent += offered * step_s
            while self._waiting and self.now_s - (self._waiting[0].begun_s or 0) > self._patience_s:
                self._end(has_left=True)
            while due >= 1 and self._waiting:
                self._end(has_left=False)
                due -= 1
            while sent >= 1:
                sent -= 1
                self._send()
            self.gate.tick(self.now_s)

    def _send(self) -> None:
        if reason := self.gate.refuses(INFERENCE, now_s=self.now_s):
            self.gate.note(reason)
            self.refused += 1
            return
        place = Place(INFERENCE, status=200)
        self.gate.begin(place, now_s=self.now_s)
        self._waiting.append(place)

    def _end(self, *, has_left: bool) -> None:
        self.good += not has_left
        self.left += has_left
        self.gate.end(self._waiting.pop(0), now_s=self.now_s, has_left=has_left)


def test_a_thousand_patient_requests_at_once_all_come_in() -> None:
    gate = make_gate()
    places = fill(gate, 1_000)
    for number, place in enumerate(places):
        place.status = 200
        gate.end(place, now_s=number / 100, has_left=False)
        gate.tick(number / 100)
    assert gate.limit == MAX


def test_after_patient_ones_as_many_come_in_again() -> None:
    clients = Clients(make_gate(), per_second=400, patience_s=60)
    clients.storm(10, offered=400)
    assert clients.refused == 0
    assert len(fill(clients.gate, 1_000 - clients.gate.in_flight[INFERENCE])) > 500


def test_clients_that_leave_after_a_second_are_refused_early_and_the_others_answered() -> None:
    clients = Clients(make_gate(), per_second=400, patience_s=1)
    clients.storm(3, offered=3_200)
    assert clients.gate.limit <= 400
    clients.good = clients.left = clients.refused = 0
    clients.storm(20, offered=3_200)
    assert clients.good >= 0.97 * 400 * 20
    assert clients.left <= 0.03 * 400 * 20
    assert clients.refused > 0.8 * 3_200 * 20


def test_after_a_storm_the_limit_grows_back() -> None:
    clients = Clients(make_gate(), per_second=400, patience_s=1)
    clients.storm(10, offered=1_600)
    assert clients.gate.limit < MAX
    clients.storm(60, offered=200)
    assert clients.gate.limit == MAX


def test_the_timeout_that_a_client_asks_for_counts_for_its_request_alone() -> None:
    gate = make_gate()
    gate.rate.per_second = 400
    fill(gate, 300)
    assert gate.refuses(INFERENCE, now_s=0, timeout_s=1) is Reason.SLOW
    assert gate.refuses(INFERENCE, now_s=0, timeout_s=2) is None
    assert gate.refuses(INFERENCE, now_s=0) is None


def test_few_requests_are_never_refused_however_slow_the_engine_is() -> None:
    gate = make_gate()
    gate.rate.per_second = 0.1
    fill(gate, LEAST - 1)
    assert gate.refuses(INFERENCE, now_s=0, timeout_s=0.001) is None


@pytest.mark.parametrize("kind", [INFERENCE, STREAM, OTHER])
def test_one_kind_that_is_full_leaves_the_others_their_places(kind: RequestKind) -> None:
    gate = make_gate(40)
    fill(gate, 40, kind)
    assert gate.refuses(kind, now_s=0) is Reason.FULL
    for another in {INFERENCE, STREAM, OTHER, RequestKind.PROBE, RequestKind.ADMIN} - {kind}:
        assert gate.refuses(another, now_s=0) is None


def test_probes_always_come_in_and_administrators_have_a_few_places() -> None:
    gate = make_gate(1)
    fill(gate, 100, RequestKind.PROBE)
    fill(gate, ADMIN_PLACES, RequestKind.ADMIN)
    assert gate.refuses(RequestKind.ADMIN, now_s=0) is Reason.FULL


def test_a_late_event_loop_refuses_inference_and_others_where_much_is_in_flight() -> None:
    gate, late_s = make_gate(), INTERVAL_S + LATE_S + 0.1
    assert gate.refuses(INFERENCE, now_s=late_s) is None
    fill(gate, LEAST, STREAM)
    assert gate.refuses(INFERENCE, now_s=late_s) is Reason.LATE
    assert gate.refuses(OTHER, now_s=late_s) is Reason.LATE
    assert gate.refuses(STREAM, now_s=late_s) is None
    gate.tick(late_s)
    assert gate.refuses(INFERENCE, now_s=late_s) is None
    gate.stop_ticking()
    assert gate.refuses(INFERENCE, now_s=late_s + 60) is None


def test_a_body_on_its_way_takes_no_place_until_it_is_complete() -> None:
    gate = make_gate(2)
    uploads = [Place(INFERENCE), Place(INFERENCE)]
    for place in uploads:
        gate.arrive(place)
    assert gate.has_much_arriving
    assert gate.refuses(INFERENCE, now_s=0) is None
    gate.begin(uploads[0], now_s=1)
    assert (gate.arriving, gate.in_flight[INFERENCE]) == (1, 1)
    for place in uploads:
        gate.end(place, now_s=2, has_left=True)
        gate.end(place, now_s=2, has_left=True)  # a second time it changes nothing
    assert (gate.arriving, gate.in_flight[INFERENCE]) == (0, 0)


def test_retry_after_is_the_time_of_what_is_in_flight() -> None:
    gate = make_gate()
    assert gate.retry_after_s == 1
    gate.rate.per_second = 10
    fill(gate, 45)
    assert gate.retry_after_s == 5
    gate.rate.per_second = 0.001
    assert gate.retry_after_s == 60


def test_as_many_begin_as_keep_the_engine_busy_for_a_moment() -> None:
    gate = make_gate()
    assert gate.begun_limit == BEGUN
    gate.rate.per_second = 1
    assert gate.begun_limit == LEAST
    gate.rate.per_second = 1_000_000
    assert gate.begun_limit == MAX
    assert gate.late_s == 30 * SHARE


def test_it_is_full_for_those_that_are_as_urgent_as_others_were_lately() -> None:
    gate = make_gate()
    gate.rate.per_second = 100
    gate.tick(0.3)
    fill(gate, 60)
    assert not gate.is_full(now_s=0.4)
    assert gate.refuses(INFERENCE, now_s=0.4, timeout_s=1) is Reason.SLOW
    assert gate.is_full(now_s=0.4)
    assert gate.refuses(INFERENCE, now_s=0.4) is None, "others may wait"
    gate.tick(0.6)
    assert gate.is_full(now_s=0.6)
    gate.tick(0.9)
    assert not gate.is_full(now_s=0.9), "nobody has asked so since"


def test_a_rate_is_learnt_only_while_requests_wait_and_errors_are_no_answers() -> None:
    rate = ServiceRate()
    rate.answered()
    rate.learn(seconds=1, in_flight=SATURATED)
    assert rate.per_second is None
    for _ in range(100):
        rate.answered()
    rate.note(SATURATED)
    rate.learn(seconds=1, in_flight=SATURATED)
    assert rate.per_second is not None
    gate = make_gate()
    [place] = fill(gate, 1)
    place.status = 401
    gate.end(place, now_s=1, has_left=False)
    assert gate.rate._answered == 0


def test_a_rate_rises_at_once_and_falls_slowly() -> None:
    rate = ServiceRate()
    rate.per_second = 100.0
    rate.learn(seconds=1, in_flight=SATURATED)
    rate.learn(seconds=ENOUGH_S, in_flight=SATURATED)
    assert 50 < rate.per_second < 100
    for _ in range(1_000):
        rate.answered()
    rate.learn(seconds=1, in_flight=SATURATED)
    assert rate.per_second > 700


def test_a_thousand_patient_requests_come_in_while_a_slow_engine_has_answered_none() -> None:
    gate = make_gate()
    for number in range(1_000):
        now_s = number / 100
        fill(gate, 1, now_s=now_s)
        gate.tick(now_s)
    assert gate.limit == MAX


def test_a_few_clients_that_leave_say_nothing_about_the_others() -> None:
    patience = Patience(30)
    for _ in range(NOTICEABLE - 1):
        patience.left(1.0)
    patience.learn(seconds=0.25, is_refusing=False)
    for _ in range(200):
        patience.answered()
    for _ in range(NOTICEABLE):
        patience.left(1.0)
    patience.learn(seconds=0.25, is_refusing=False)
    assert patience.seconds == 30


def test_clients_that_close_at_once_don_t_make_the_service_refuse_others() -> None:
    patience = Patience(30)
    for _ in range(100):
        patience.left(0.001)
    patience.learn(seconds=0.25, is_refusing=False)
    assert patience.seconds == LEAST_S


def test_when_clients_go_on_leaving_the_limit_goes_on_falling() -> None:
    patience = Patience(30)
    for _ in range(20):
        for _ in range(10):
            patience.left(2.0)
        patience.learn(seconds=1, is_refusing=True)
    assert LEAST_S <= patience.seconds < 0.5 * 2.0


def test_the_kind_of_a_path_is_that_of_its_route() -> None:
    paths = {"/predict": INFERENCE, "/predict/{model_name}": INFERENCE, "/chat": STREAM}
    deep = ("POST /", "/a/{b}/infer", "/a/{b}/versions/{c}/infer", "/d/{e}/f/g/h")
    kinds = PathKinds(paths | dict.fromkeys(deep, INFERENCE))
    assert kinds.of(b"/predict", b"POST") is INFERENCE
    assert kinds.of(b"/predict/some-model", b"POST") is INFERENCE
    assert kinds.of(b"/%70redict", b"POST") is INFERENCE
    assert kinds.of(b"/predict", b"OPTIONS") is OTHER
    assert kinds.of(b"/chat", b"POST") is STREAM
    assert kinds.of(b"/jobs/1/events", b"GET") is OTHER
    assert (kinds.of(b"/", b"POST"), kinds.of(b"/", b"GET")) == (INFERENCE, OTHER)
    for path in (b"/a/1/infer", b"/a/1/versions/2/infer", b"/d/1/f/g/h"):
        assert kinds.of(path, b"POST") is INFERENCE
    assert kinds.of(b"/d/1/f/g", b"POST") is OTHER
