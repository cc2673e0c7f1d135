"""Whether it is clear where a request begins and ends, as RFC 9112 requires.

The parser refuses most of what is ambiguous itself: two lengths, a length beside an encoding,
signs, folded lines, blanks before a colon, invalid names and line ends. This is the rest.
"""

import re
from collections.abc import Iterable

from app.errors import (
    BadRequestError,
    HeadersTooLargeError,
    HttpVersionError,
    TargetTooLongError,
    TransferEncodingError,
)

# As nginx's four buffers of 8 KiB, doubled.
MAX_HEADER_BYTES = 65_536
# Twice what Apache takes; behind proxies a request has about thirty.
MAX_HEADERS = 200
# As nginx's largest line of a request; RFC 9112 asks for 8,000 at least.
MAX_TARGET_BYTES = 8_192
# ": ", and the end of a line.
BYTES_PER_HEADER = 4
# A name or an address, and a port: what RFC 3986 lets an authority consist of, but for its user.
HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]*")
VERSIONS = ("1.1", "1.0")
HEAD_END = b"\r\n\r\n"


def without_upgrade(first: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a head that doesn't ask for another protocol.

    Args:
        first: its first line.
        headers: with names in lower case.

    """
    lines = [name + b": " + value for name, value in headers if name != b"upgrade"]
    return b"\r\n".join([first, *lines]) + HEAD_END


class RequestHead:
    """What was read so far of a request's first line, headers and trailers."""

    def __init__(self) -> None:
        self._size = 0
        self._headers = 0
        self._target_bytes = 0
        self._hosts = 0
        self._is_encoded = False
        self.length = 0  # of the body, where it was announced

    def take_target(self, part: bytes) -> None:
        """Count a part of the target.

        Raises:
            TargetTooLongError: it is too long.

        """
        self._target_bytes += len(part)
        if self._target_bytes > MAX_TARGET_BYTES:
            raise TargetTooLongError

    def take_trailer(self, name: bytes, value: bytes) -> None:
        """Count a header that comes after the body.

        Raises:
            HeadersTooLargeError: all together are too many, or too large.

        """
        self._headers += 1
        self._size += len(name) + len(value) + BYTES_PER_HEADER
        if self._headers > MAX_HEADERS or self._target_bytes + self._size > MAX_HEADER_BYTES:
            raise HeadersTooLargeError

    def take_header(self, name: bytes, value: bytes) -> None:
        """Count a header, and check Host and Transfer-Encoding.

        Raises:
            HeadersTooLargeError: all together are too many, or too large.
            TransferEncodingError: the body is encoded otherwise than in chunks.
            BadRequestError: the host isn't valid.

        """
        self.take_trailer(name, value)
        lowered = name.lower()
        if lowered == b"host":
            self._hosts += 1
            if not HOST.fullmatch(value.strip()):
                raise BadRequestError("The Host header is not a host.")
        elif lowered == b"content-length":
            self.length = int(value)  # the parser has taken digits only
        elif lowered == b"transfer-encoding":
            self._is_encoded = True
            if value.strip().lower() != b"chunked":
                raise TransferEncodingError

    def check(self, version: str) -> None:
        """Check the complete head.

        Raises:
            HttpVersionError: it is in another version of HTTP.
            BadRequestError: no Host or several, or an encoding that this version doesn't have.

        """
        if version not in VERSIONS:
            raise HttpVersionError
        if self._hosts > 1 or (not self._hosts and version == "1.1"):
            raise BadRequestError("The request needs exactly one Host header.")
        if self._is_encoded and version == "1.0":
            raise BadRequestError("HTTP/1.0 has no Transfer-Encoding.")
