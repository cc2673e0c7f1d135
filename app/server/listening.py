"""Where the service listens: before anything else is opened, or it fails with one sentence."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from app.errors import StartupError
from app.server.accepting import AT_ONCE

Address = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
WHY = {
    errno.EADDRINUSE: "is in use: end what listens there, or give {}",
    errno.EACCES: "is not for this user to listen on: give {} with a number from 1024",
}
# Callers that may wait to be accepted: as many as are accepted in a turn of the event loop, so that
# none gets old there. With 2,048, as uvicorn has it, the oldest of a storm had waited for seconds.
BACKLOG = AT_ONCE
NOT_HERE = "can't be listened on ({}): give --host with an address of this machine"


@contextmanager
def listening(host: str, port: int, option: str = "--port") -> Iterator[list[socket.socket]]:
    """Listen, and stop when the block is over; clients wait until they are accepted.

    Args:
        host: an address, or a name, which may stand for several.
        port: 0 takes a free one.
        option: what chooses the port, for the sentence.

    Raises:
        StartupError: the address can't be used.

    """
    with listening_apart(host, port, option, processes=1) as (sockets,):
        yield sockets


@contextmanager
def listening_apart(
    host: str, port: int, option: str = "--port", *, processes: int
) -> Iterator[list[list[socket.socket]]]:
    """Listen as `listening` does, with sockets of its own for each of several processes."""
    with ExitStack() as stack:
        sockets: list[list[socket.socket]] = [[] for _ in range(processes)]
        try:
            for kind, found in _find(host, port):
                address = found
                for own in sockets:
                    sock = stack.enter_context(socket.socket(kind, socket.SOCK_STREAM))
                    is_first = own is sockets[0]
                    _listen(sock, address, joins=not is_first)
                    if is_first and processes > 1:
                        # Only now: of another service it must be refused the address.
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                        address = sock.getsockname()  # port 0 has become a free one
                    own.append(sock)
        except (OSError, UnicodeError) as failure:
            raise StartupError(_refusal(host, port, option, failure)) from None
        yield sockets


def _find(host: str, port: int) -> list[tuple[int, Address]]:
    """Return the addresses that a name stands for, each once, in the resolver's order."""
    infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = list(dict.fromkeys((kind, address) for kind, _, _, _, address in infos))
    # "localhost" may stand for an address of a family that the kernel was built without.
    return [entry for entry in addresses if len(addresses) == 1 or _is_family(entry[0])]


def _is_family(kind: int) -> bool:
    try:
        socket.socket(kind, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def _listen(sock: socket.socket, address: Address, *, joins: bool) -> None:
    """Prepare a socket as event loops do, which would do it after the start.

    Args:
        sock: new.
        address: to listen on.
        joins: whether another socket of this process listens there too.

    """
    sock.settimeout(0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if joins:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(address)
    # Bound alone, the address could be bound once more, and one of the two would fail late.
    sock.listen(BACKLOG)


def _refusal(host: str, port: int, option: str, failure: OSError | UnicodeError) -> str:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    number = failure.errno if isinstance(failure, OSError) else None
    if why := WHY.get(number or 0):
        return f"{place} {why.format(option)}"
    reason = getattr(failure, "strerror", None) or "no name of a host"
    return f"{place} {NOT_HERE.format(reason)}"
