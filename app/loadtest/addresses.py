"""Where a storm is aimed: at this machine, unless it is said that another one is meant."""

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from app.errors import StartupError
from app.loadtest.bare_connection import Address
from app.loadtest.bench import NOTHING_TO_MEASURE
from app.loadtest.connection import PORTS
from app.loadtest.loop import CONNECT_TIMEOUT_S, UNCONNECTED


def find_address(url: str, *, may_leave: bool) -> Address:
    """Return the first address of a URL that accepts a connection.

    Args:
        url: of plain HTTP.
        may_leave: whether it may be an address of another machine.

    Raises:
        StartupError: it isn't HTTP, or of another machine, or nothing listens there.

    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise StartupError(f"{url}: a storm needs an address such as http://127.0.0.1:8000/predict")
    try:
        infos = socket.getaddrinfo(
            parts.hostname, parts.port or PORTS["http"], type=socket.SOCK_STREAM
        )
    except OSError as failure:
        raise StartupError(f"{parts.hostname}: {failure.strerror}") from None
    for family, _, _, _, place in infos:
        if not may_leave and not _is_loopback(str(place[0])):
            raise StartupError(
                f"{parts.hostname} isn't this machine, and a storm keeps others from being served;"
                " --anywhere if that is meant"
            )
        if _listens(family, place):
            return Address(family, place)
    raise StartupError(NOTHING_TO_MEASURE[UNCONNECTED])


def get_request(url: str) -> bytes:
    """Return the bytes of a GET, after which the server closes the connection."""
    parts = urlsplit(url)
    head = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    return head.encode()


def _is_loopback(host: str) -> bool:
    return ip_address(host.partition("%")[0]).is_loopback


def _listens(family: socket.AddressFamily, place: tuple[object, ...]) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.settimeout(CONNECT_TIMEOUT_S)
        return attempt.connect_ex(place) == 0
