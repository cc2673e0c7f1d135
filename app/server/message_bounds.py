"""When a message is too large in what the parser doesn't report: half a head, or framing."""

from app.errors import BodyTooLargeError, HeadersTooLargeError
from app.server.request_head import HEAD_END, MAX_HEADER_BYTES

# A chunk of one byte comes with five around it.
FRAMING_PER_BYTE = 8


class MessageBounds:
    """Counts the bytes of one connection's messages, piece by piece as they are parsed."""

    def __init__(self) -> None:
        self.unfinished = 0  # of a head that hasn't come to its end
        self._framing = 0  # of a body, beyond what its chunks may have around them
        # In the piece that is being parsed: messages that begin, and bytes of bodies.
        self._begun = self._body = 0

    def begin_piece(self) -> None:
        """Count what the parser reports from now on as the next piece's."""
        self._begun = self._body = 0

    def begin_message(self) -> None:
        """Count the beginning of a message."""
        self.unfinished = self._framing = 0
        self._begun += 1

    def take_body(self, size: int) -> None:
        """Count a part of a body."""
        self._body += size

    def check_head(self, piece: bytes) -> None:
        """Check a head that the piece doesn't end: the parser reports a header when it is complete.

        Raises:
            HeadersTooLargeError: it is too long.

        """
        if self._begun:
            _, _, after = piece.rpartition(HEAD_END)
            self.unfinished = max(1, len(after) - self._body)
        else:
            self.unfinished += len(piece)
        if self.unfinished > MAX_HEADER_BYTES:
            raise HeadersTooLargeError

    def check_framing(self, size: int, *, has_trailers: bool) -> None:
        """Check a body that goes on: what is around its chunks isn't counted as their bytes are.

        Args:
            size: of the piece.
            has_trailers: whether the chunks have ended.

        Raises:
            HeadersTooLargeError: the trailers are too large.
            BodyTooLargeError: it is mostly framing.

        """
        if self._begun:  # an earlier body ended in the piece
            return
        self._framing += size - (1 + FRAMING_PER_BYTE) * self._body
        self._framing = max(0, self._framing)
        if self._framing > MAX_HEADER_BYTES:
            if has_trailers:
                raise HeadersTooLargeError
            raise BodyTooLargeError("What is around the chunks of the body is too large.")
