"""How messages cross between the service and the process of a model: no pickles, so no code.

A message is a head of JSON and any number of blobs of bytes (items, answers). Large blobs cross by
shared memory: a file without a name, which is gone with the two processes however they end.
"""

import os
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from pydantic_core import from_json, to_json

# Lengths of the head and of the blobs together, and whether those are in the shared memory.
PREFIX: Final = struct.Struct("<IQ?")
# More is quicker by shared memory: a socket's buffer has 208 KiB by default.
INLINE_BYTES: Final = 64 * 2**10
# Of shared memory that is kept for the next message.
KEPT_BYTES: Final = 4 * 2**20
# Only bounds: what is longer isn't of our own making, as when a class writes to the socket.
MAX_HEAD_BYTES: Final = 64 * 2**20
MAX_BLOB_BYTES: Final = 2**30
READ_BYTES: Final = 128 * 2**10
SIZES: Final = "sizes"


class NoRoomError(Exception):
    """A message has no room, or is too long: it wasn't sent, or is lost; the channel goes on."""


class ChannelClosedError(ConnectionError):
    """The other side has ended, or sends what is no message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What was received."""

    head: Mapping[str, Any]
    blobs: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedMemory:
    """Descriptors of shared memory, one for each direction."""

    outgoing: int
    incoming: int

    def close(self) -> None:
        """Give it back; the memory is free when both sides have."""
        os.close(self.outgoing)
        os.close(self.incoming)


def open_memory(name: str) -> SharedMemory | None:
    """Make shared memory; None where the system has none without a name."""
    if not hasattr(os, "memfd_create"):
        return None
    return SharedMemory(outgoing=os.memfd_create(name), incoming=os.memfd_create(name))


class Channel:
    """Sends and receives messages: one side asks, the other answers, one at a time.

    Args:
        connection: a stream socket; closed with the channel.
        memory: for large blobs; None: they go through the socket.

    """

    def __init__(self, connection: socket.socket, memory: SharedMemory | None) -> None:
        self._connection = connection
        self._memory = memory

    def send(
        self, head: Mapping[str, Any], blobs: Sequence[bytes] = (), *, until_s: float | None = None
    ) -> None:
        """Send a message.

        Args:
            head: its JSON.
            blobs: its bytes.
            until_s: as `time.monotonic` counts; None: it takes as long as it takes.

        Raises:
            NoRoomError: there is no room for it; nothing is sent.
            TimeoutError: the other side doesn't take it in time.
            ChannelClosedError: the other side has ended.

        """
        try:
            message = self._message(head, blobs)
        except MemoryError as failure:
            raise NoRoomError("no memory for a message") from failure
        self._connection.settimeout(_left(until_s))
        try:
            self._connection.sendall(message)
        except TimeoutError:
            raise
        except OSError as failure:
            raise ChannelClosedError("the other side has ended") from failure

    def _message(self, head: Mapping[str, Any], blobs: Sequence[bytes]) -> bytes:
        """Return what goes through the socket; large blobs are shared.

        Raises:
            NoRoomError, MemoryError: it has no room, or is too long.

        """
        coded = to_json({**head, SIZES: [len(blob) for blob in blobs]})
        count = sum(map(len, blobs))
        if len(coded) > MAX_HEAD_BYTES or count > MAX_BLOB_BYTES:
            raise NoRoomError(f"a message of {len(coded) + count} bytes is too long")
        body = b"".join(blobs)
        is_shared = self._memory is not None and count > INLINE_BYTES
        if is_shared:
            self._share(body)
        return PREFIX.pack(len(coded), count, is_shared) + coded + (b"" if is_shared else body)

    def _share(self, body: bytes) -> None:
        """Copy blobs into the shared memory.

        Raises:
            NoRoomError: there is no room for them.

        """
        assert self._memory is not None  # noqa: S101  # the caller has seen to it
        view, offset = memoryview(body), 0
        try:
            while offset < len(body):
                offset += os.pwrite(self._memory.outgoing, view[offset:], offset)
        except OSError as failure:
            with suppress(OSError):
                os.ftruncate(self._memory.outgoing, 0)  # what there was room for, to others
            raise NoRoomError("no room in shared memory") from failure

    def receive(self, *, until_s: float | None = None) -> Message:
        """Wait for a message.

        Raises:
            NoRoomError: there is no memory for it; it is lost, and the next one can come.
            TimeoutError: there was none in time.
            ChannelClosedError: the other side has ended, or sends something else.

        """
        received = bytearray()
        self._fill(received, PREFIX.size, until_s)
        head_bytes, body_bytes, is_shared = PREFIX.unpack_from(received)
        if head_bytes > MAX_HEAD_BYTES or body_bytes > MAX_BLOB_BYTES:
            raise ChannelClosedError("the other side sends something else")
        body_at = PREFIX.size + head_bytes
        self._fill(received, body_at + (0 if is_shared else body_bytes), until_s)
        try:
            head: dict[str, Any] = from_json(bytes(received[PREFIX.size : body_at]))
            body = self._shared(body_bytes) if is_shared else bytes(received[body_at:])
            return Message(head=head, blobs=_cut(body, head.pop(SIZES)))
        except MemoryError as failure:
            raise NoRoomError("no memory for a message") from failure
        except (ValueError, LookupError, TypeError) as failure:
            raise ChannelClosedError("the other side sends something else") from failure

    def _fill(self, received: bytearray, count: int, until_s: float | None) -> None:
        """Receive until there are so many bytes; nothing follows a message."""
        while len(received) < count:
            self._connection.settimeout(_left(until_s))
            try:
                piece = self._connection.recv(READ_BYTES)
            except TimeoutError:
                raise
            except OSError as failure:
                raise ChannelClosedError("the other side has ended") from failure
            if not piece:
                raise ChannelClosedError("the other side has ended")
            try:
                received += piece
            except MemoryError as failure:  # the rest would be taken for another message
                raise ChannelClosedError("no memory for a message") from failure

    def _shared(self, count: int) -> bytes:
        """Copy blobs out of the shared memory; a mapping of what the other side cuts would crash.

        Raises:
            ValueError: there are fewer bytes.

        """
        if self._memory is None:
            raise ValueError("no shared memory")
        pieces, offset = [], 0
        while offset < count:
            piece = os.pread(self._memory.incoming, count - offset, offset)
            if not piece:
                raise ValueError("too few bytes")
            pieces.append(piece)
            offset += len(piece)
        if count > KEPT_BYTES:
            os.ftruncate(self._memory.incoming, 0)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def end(self) -> None:
        """End it; the other side sees that, and so does a thread that receives."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it, and give it back."""
        self.end()
        self._connection.close()


def _left(until_s: float | None) -> float | None:
    """Return the seconds that are left.

    Raises:
        TimeoutError: there are none.

    """
    if until_s is None:
        return None
    left_s = until_s - monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _cut(body: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Cut blobs out of a body.

    Raises:
        ValueError: it has another length.

    """
    if sum(sizes) != len(body):
        raise ValueError("the sizes of the blobs are wrong")
    blobs, start = [], 0
    for size in sizes:
        blobs.append(body[start : start + size])
        start += size
    return blobs
