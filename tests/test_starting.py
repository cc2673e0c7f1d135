"""In which order requests begin that wait for their turn."""

from functools import partial

import pytest

from app.core.request_kinds import RequestKind
from app.server.gate import Place
from app.server.starting import OVERDUE_AT_ONCE, Starting

pytestmark = pytest.mark.core


class Begun(list[int]):
    """The numbers of requests, in the order in which they began."""

    def __init__(self, limit: int, count: int) -> None:
        super().__init__()
        self.starting = Starting(limit)
        self.places = [Place(RequestKind.INFERENCE, begun_s=float(n)) for n in range(count)]
        for number, place in enumerate(self.places):
            self.starting.add(place, partial(self.append, number))

    def end(self, number: int, *, now_s: float, late_s: float = 100.0) -> bool:
        was_waiting = self.starting.end(self.places[number])
        self.starting.go_on(now_s=now_s, late_s=late_s)
        return was_waiting


def test_as_many_begin_as_may_and_the_others_in_the_order_in_which_they_came() -> None:
    begun = Begun(limit=2, count=5)
    assert begun == [0, 1]
    for number in (1, 0, 2):
        assert not begun.end(number, now_s=5.0)
    assert begun == [0, 1, 2, 3, 4]


def test_while_the_oldest_is_late_the_last_come_begins_first() -> None:
    begun = Begun(limit=1, count=5)
    begun.end(0, now_s=5.0, late_s=3.5)
    begun.end(4, now_s=6.0, late_s=100.0)
    assert begun == [0, 4, 1]


def test_those_that_were_late_begin_too() -> None:
    begun = Begun(limit=1, count=5)
    while len(begun) < 5:
        begun.end(begun[-1], now_s=50.0, late_s=1.0)
    assert begun == [0, 4, 3, 2, 1]


def test_those_whose_deadline_has_passed_begin_though_there_is_no_room() -> None:
    begun = Begun(limit=1, count=5)
    for number, due_s in ((1, 9.0), (2, 7.0), (3, 20.0)):
        begun.places[number].due_s = due_s
    begun.starting.start_overdue(now_s=8.0)
    assert begun == [0, 2]
    begun.starting.start_overdue(now_s=9.0)
    assert begun == [0, 2, 1]
    for number in (2, 1):
        begun.end(number, now_s=9.0)
    assert begun == [0, 2, 1], "the first still has the only place"
    begun.end(0, now_s=9.0)
    assert begun == [0, 2, 1, 3]


def test_of_many_whose_deadline_has_passed_few_begin_in_a_turn() -> None:
    begun = Begun(limit=1, count=2 * OVERDUE_AT_ONCE)
    for place in begun.places:
        place.due_s = 1.0
    begun.starting.start_overdue(now_s=1.0)
    assert begun == list(range(1 + OVERDUE_AT_ONCE))
    begun.starting.start_overdue(now_s=1.0)
    assert begun.starting.waiting == 0


def test_one_whose_client_leaves_while_it_waits_never_begins() -> None:
    begun = Begun(limit=1, count=3)
    assert begun.end(1, now_s=3.0)
    assert begun.starting.waiting == 1
    begun.end(0, now_s=3.0)
    assert begun == [0, 2]
