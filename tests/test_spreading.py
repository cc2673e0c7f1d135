"""Which sockets of an address get its new connections."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from app.errors import StartupError
from app.server.listening import listening, listening_apart
from app.server.spreading import spread

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux spreads connections")

CLIENTS = 200


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """Three sockets of one address."""
    with listening_apart("127.0.0.1", 0, processes=3) as apart:
        yield [own[0] for own in apart]


def arrivals(sockets: list[socket.socket]) -> list[int]:
    """Open connections, and say how many came in at each socket."""
    with ExitStack() as stack:
        for _ in range(CLIENTS):
            stack.enter_context(socket.create_connection(sockets[0].getsockname()))
        return [count(sock) for sock in sockets]


def count(listens: socket.socket) -> int:
    accepted = 0
    while True:
        try:
            listens.accept()[0].close()
        except BlockingIOError:
            return accepted
        accepted += 1


def test_connections_are_spread_over_all(sockets: list[socket.socket]) -> None:
    spread(sockets, [0, 1, 2])
    came = arrivals(sockets)
    assert sum(came) == CLIENTS
    assert min(came) > CLIENTS / 6  # a third each: less than half of that has odds of 1e-7


def test_sockets_that_arent_chosen_get_none(sockets: list[socket.socket]) -> None:
    for chosen in ([1], [0, 2], [2]):
        spread(sockets, chosen)
        came = arrivals(sockets)
        assert sum(came) == CLIENTS
        assert [place for place, number in enumerate(came) if number] == chosen


def test_what_waits_is_kept_when_others_are_chosen(sockets: list[socket.socket]) -> None:
    spread(sockets, [1])
    with socket.create_connection(sockets[0].getsockname()):
        spread(sockets, [0])
        assert count(sockets[1]) == 1


def test_all_processes_listen_on_the_same_free_port(sockets: list[socket.socket]) -> None:
    assert len({sock.getsockname() for sock in sockets}) == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_another_service_is_refused_the_address(
    sockets: list[socket.socket], processes: int
) -> None:
    port = sockets[0].getsockname()[1]
    taken = listening_apart("127.0.0.1", port, processes=processes)
    with pytest.raises(StartupError, match="is in use"), taken:
        pass


def test_an_address_in_use_is_refused_to_all_processes() -> None:
    with listening("127.0.0.1", 0) as [sock]:
        taken = listening_apart("127.0.0.1", sock.getsockname()[1], processes=2)
        with pytest.raises(StartupError, match="is in use"), taken:
            pass
