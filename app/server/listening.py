"""Where the service listens: taken before anything is opened, or refused in one sentence."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from app.errors import StartupError

Address = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
WHY = {
    errno.EADDRINUSE: "is in use: end what listens there, or give --port",
    errno.EACCES: "is not for this user to listen on: give --port with a number from 1024",
}
# Callers that may wait to be accepted, as uvicorn has it; Python alone takes 128. Linux takes
# net.core.somaxconn at most, 4,096 unless it is set.
BACKLOG = 2048
NOT_HERE = "can't be listened on ({}): give --host with an address of this machine"


@contextmanager
def listening(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Listen, and stop when the block is over; who connects waits until somebody accepts.

    Args:
        host: an address, or a name, which may stand for several.
        port: 0 takes a free one.

    Raises:
        StartupError: the address can't be had.

    """
    with ExitStack() as stack:
        sockets = []
        try:
            for kind, address in _find(host, port):
                opened = stack.enter_context(socket.socket(kind, socket.SOCK_STREAM))
                _listen(opened, address)
                sockets.append(opened)
        except (OSError, UnicodeError) as failure:
            raise StartupError(_refusal(host, port, failure)) from None
        yield sockets


def _find(host: str, port: int) -> list[tuple[int, Address]]:
    """Return the addresses that a name stands for, each once, in the resolver's order."""
    named = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    found = list(dict.fromkeys((kind, address) for kind, _, _, _, address in named))
    # "localhost" may stand for an address of a family that the kernel was built without.
    return [each for each in found if len(found) == 1 or _is_family(each[0])]


def _is_family(kind: int) -> bool:
    try:
        socket.socket(kind, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def _listen(opened: socket.socket, address: Address) -> None:
    """Prepare a socket as event loops do, which would do it after the start."""
    opened.settimeout(0)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if opened.family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    opened.bind(address)
    # Bound alone, the address could be bound once more, and the loser would hear of it late.
    opened.listen(BACKLOG)


def _refusal(host: str, port: int, failure: OSError | UnicodeError) -> str:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    number = failure.errno if isinstance(failure, OSError) else None
    reason = getattr(failure, "strerror", None) or "no name of a host"
    return f"{place} {WHY.get(number or 0) or NOT_HERE.format(reason)}"
