"""One keep-alive connection of the load client, with as little work per request as Python can do.

The client shares the machine with what it measures: requests are made beforehand, and of an answer
only its status and its length are read.
"""

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.loadtest.answer_bytes import HEAD_END, AnswerBytes

CLOSED = "closed"  # the server hung up without an answer
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the requests go, and the requests themselves, which are sent in turn."""

    host: str
    port: int
    requests: Sequence[bytes]
    tls: ssl.SSLContext | None = None  # None: plain http


def text_body(text: str) -> bytes:
    """Return the body of this service's /predict."""
    return json.dumps({"text": text}).encode()


def make_target(
    url: str,
    texts: Sequence[str],
    *,
    body: Callable[[str], bytes] = text_body,
    headers: Mapping[str, str] | None = None,
) -> Target:
    """Prepare the requests.

    Args:
        url: of the route, such as http://127.0.0.1:8000/predict.
        texts: sent in turn.
        body: makes a request's body of a text.
        headers: sent with each, beside those that every request needs.

    Raises:
        ValueError: the URL is neither http nor https.

    """
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError(f"{url}: is no address such as http://127.0.0.1:8000/predict")
    lines = [f"POST {parts.path or '/'} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    head = "\r\n".join([*lines, "Content-Type: application/json", "Content-Length: "]).encode()
    bodies = [body(text) for text in texts]
    return Target(
        host=parts.hostname,
        port=parts.port or PORTS[parts.scheme],
        requests=[b"%s%d%s%s" % (head, len(body), HEAD_END, body) for body in bodies],
        tls=ssl.create_default_context() if parts.scheme == "https" else None,
    )


class Connection(asyncio.Protocol):
    """A connection with at most one request on its way.

    Args:
        on_answer: called with the connection, the outcome and the bytes of each answer.

    """

    def __init__(self, on_answer: Callable[["Connection", str, bytes], None]) -> None:
        self._on_answer = on_answer
        self._transport: asyncio.WriteTransport | None = None
        self._answer = AnswerBytes()
        self.is_open = False
        self.is_busy = False
        self.was_cut = False  # the server hung up in the middle of a request
        self.number = -1
        self.due_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports come from no class of asyncio's, though they have its methods.
        self._transport = transport  # type: ignore[assignment]
        self.is_open = True

    def send(self, number: int, request: bytes, due_s: float) -> None:
        """Send a request that was due at that time."""
        self.number, self.due_s, self.is_busy = number, due_s, True
        self._answer = AnswerBytes()
        if self._transport is not None:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Collect an answer; report it when it is whole."""
        if self.is_busy and self._answer.take(data):
            if self._answer.is_last:
                self.close()
            self._finish(self._answer.status)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report a request that got no answer."""
        del exc
        self.is_open = False
        if self.is_busy:
            self.was_cut = True
            self._finish(CLOSED)

    def abandon(self, outcome: str) -> None:
        """Leave without waiting for the answer, as an impatient client does."""
        self.close()
        self._finish(outcome)

    def close(self) -> None:
        """Close the connection now."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def _finish(self, outcome: str) -> None:
        self.is_busy = False
        self._on_answer(self, outcome, self._answer.received)
