"""When an answer is whole, of which only its status, its length and some headers are read."""

HEAD_END = b"\r\n\r\n"
LAST_CHUNK = b"\r\n0\r\n\r\n"
STATUS = slice(9, 12)  # "HTTP/1.1 200 OK"


class AnswerBytes:
    """The bytes of one answer, as they come."""

    __slots__ = ("_needed", "received")

    def __init__(self) -> None:
        self.received = b""
        self._needed = 0  # bytes of the whole answer, once its head is there; -1: in chunks

    def take(self, data: bytes) -> bool:
        """Add what came; return whether the answer is whole."""
        self.received += data
        if not self._needed:
            end = self.received.find(HEAD_END)
            if end < 0:
                return False
            self._needed = _whole_length(self.received[:end].lower())
        if self._needed < 0:
            return self.received.endswith(LAST_CHUNK)
        return len(self.received) >= self._needed

    @property
    def status(self) -> str:
        """Its HTTP status."""
        return self.received[STATUS].decode("latin-1")

    @property
    def is_last(self) -> bool:
        """Whether the server closes the connection after it."""
        return self.has(b"connection: close") or self.received.startswith(b"HTTP/1.0")

    def has(self, header: bytes) -> bool:
        """Tell whether the head has a header, or the beginning of one, in lower case."""
        head, _, _ = self.received.partition(HEAD_END)
        return b"\r\n" + header in head.lower()


def _whole_length(head: bytes) -> int:
    """Return how long the whole answer is, or -1 if it comes in chunks. The head is lower case."""
    _, separator, rest = head.partition(b"\r\ncontent-length:")
    if not separator and b"chunked" in head:
        return -1
    body_bytes = int(rest.split(b"\r\n", 1)[0]) if separator else 0
    return len(head) + len(HEAD_END) + body_bytes
