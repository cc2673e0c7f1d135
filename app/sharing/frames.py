"""How front ends and the engine's process talk: frames of bytes over a Unix socket, no pickles.

A frame is its length, its kind, and a payload, which begins with what its kind has of its own.
"""

import json
import struct
from array import array
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final

# Length of the payload, and the kind.
PREFIX: Final = struct.Struct("<IB")
# Only a bound: a tokeniser has some megabytes, the texts of a request or their rows less.
MAX_PAYLOAD_BYTES: Final = 128 * 2**20
# Number of a request, model, texts, deadline on the clock of `time.monotonic`.
REQUEST: Final = struct.Struct("<QHHd")
NUMBER: Final = struct.Struct("<Q")
CANCEL: Final = struct.Struct("<Q?")  # whether its client has left
LENGTH: Final = struct.Struct("<I")


class Kind(IntEnum):
    """What a frame is."""

    MODEL = 1  # the engine's process: a model serves, and what a front end has to know of it
    STATE = 2  # the engine's process: how each model is
    REQUEST = 3  # a front end: the tokens of a request's texts
    CANCEL = 4  # a front end: nobody waits for a request any more
    ROWS = 5  # the engine's process: the rows of a request
    REFUSED = 6  # the engine's process: the error of a whole request
    TRACED = 7  # a front end: as REQUEST, behind the trace that it belongs to


class LinkError(ValueError):
    """What was received is none of our frames."""


class TooLargeError(ValueError):
    """What is to be sent is larger than a frame may be."""


def frame(kind: Kind, *parts: bytes | bytearray) -> bytes:
    """Return a frame.

    Raises:
        TooLargeError: its payload is too large.

    """
    size = sum(map(len, parts))
    if size > MAX_PAYLOAD_BYTES:
        raise TooLargeError(f"{size} bytes")
    return b"".join((PREFIX.pack(size, kind), *parts))


class FrameReader:
    """Puts frames together from the bytes that come."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> list[tuple[Kind, bytearray]]:
        """Take bytes; return the kind and the payload of each frame that is whole now.

        Raises:
            LinkError: a frame is too large, or of no kind that there is.

        """
        self._received += data
        frames = []
        start = 0
        while len(self._received) >= start + PREFIX.size:
            size, number = PREFIX.unpack_from(self._received, start)
            if size > MAX_PAYLOAD_BYTES:
                raise LinkError(f"a frame of {size} bytes")
            end = start + PREFIX.size + size
            if len(self._received) < end:
                break
            try:
                kind = Kind(number)
            except ValueError:
                raise LinkError(f"a frame of the kind {number}") from None
            frames.append((kind, self._received[start + PREFIX.size : end]))
            start = end
        del self._received[:start]
        return frames


def whole_numbers(data: bytes | bytearray) -> "array[int]":
    """Return the numbers of a payload.

    Raises:
        LinkError: it has part of one.

    """
    numbers = array("i")
    try:
        numbers.frombytes(data)
    except ValueError:
        raise LinkError("a number is cut off") from None
    return numbers


def pack_json(head: Mapping[str, Any], blob: bytes = b"") -> bytes:
    """Return JSON and the bytes that follow it."""
    written = json.dumps(head).encode()
    return LENGTH.pack(len(written)) + written + blob


def unpack_json(payload: bytes | bytearray) -> tuple[dict[str, Any], bytes]:
    """Return what `pack_json` wrote.

    Raises:
        LinkError: it is something else.

    """
    try:
        (size,) = LENGTH.unpack_from(payload)
        if len(payload) < LENGTH.size + size:
            raise LinkError("JSON is cut off")
        head: dict[str, Any] = json.loads(payload[LENGTH.size : LENGTH.size + size])
    except (struct.error, ValueError) as failure:
        raise LinkError("no JSON") from failure
    return head, bytes(payload[LENGTH.size + size :])
