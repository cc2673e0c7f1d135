"""A server on loopback that speaks OpenAI's chat completions, and behaves as it is told.

A behaviour is a function of the `Exchange` that it answers; `OpenAiServer(a, b)` answers the first
request with `a` and all others with `b`. `openai_misbehaviours.py` has more of them.
"""

import json
import select
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler
from threading import Event
from typing import Any

from loopback import WAIT_S, LoopbackServer

# What no client of the service may ever read: every error of this server says it.
PROVIDER_WORDS = "words-of-the-provider"
PATH = "/v1/chat/completions"
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 3,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 4},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One request that came; header names in lower case."""

    path: str
    headers: Mapping[str, str]
    body: Any


class OpenAiServer(LoopbackServer):
    """Notes each request and answers it as its behaviours say."""

    def __init__(self, *behaviours: "Behaviour") -> None:
        self.requests: list[Recorded] = []
        self.go = Event()  # what `hold` waits for
        self.left = Event()  # a client has closed its connection before the end
        self.ended = Event()  # a connection is over
        self.connections: set[socket.socket] = set()  # that are open
        self.accepted = 0  # connections so far
        self.is_killed = False
        self._behaviours = behaviours or (say("Hello", " wide", " world"),)
        super().__init__(partial(_Handler, self))

    def stop(self) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """Address to give as `base_url`."""
        return f"{super().url}/v1"

    def behave(self, *behaviours: "Behaviour") -> None:
        """Begin anew, with other behaviours and nothing noted."""
        self.requests.clear()
        self.go.clear()
        self.left.clear()
        self._behaviours = behaviours

    def note(self, request: Recorded) -> "Behaviour":
        """Note a request; return how it is answered."""
        self.requests.append(request)
        return self._behaviours[min(len(self.requests), len(self._behaviours)) - 1]

    def kill(self) -> None:
        """End as a killed process does: every connection is reset, new ones are refused."""
        self.is_killed = True
        self.go.set()
        super().stop()
        for connection in list(self.connections):
            reset(connection)


def reset(connection: socket.socket) -> None:
    """Close a connection without the farewell that TCP knows."""
    try:
        linger = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is closed already


class Exchange:
    """One request and its answer, for behaviours."""

    def __init__(self, server: OpenAiServer, handler: "_Handler", request: Recorded) -> None:
        self.server = server
        self.request = request
        self._handler = handler

    def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a whole answer."""
        self._handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self._handler.send_header(name, value)
        self._handler.end_headers()
        self._handler.wfile.write(body)

    def begin(self, content_type: str = "text/event-stream") -> None:
        """Send the head of a stream."""
        self._handler.send_response(200)
        self._handler.send_header("Content-Type", content_type)
        self._handler.send_header("Transfer-Encoding", "chunked")
        self._handler.end_headers()

    def send(self, data: bytes) -> None:
        """Send a piece of the stream."""
        try:
            self._handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        except OSError:
            self.server.left.set()
            raise

    def event(self, content: object) -> None:
        """Send an object as an event."""
        self.send(b"data: " + json.dumps(content).encode() + b"\n\n")

    def tokens(self, *tokens: str) -> None:
        """Send a chunk for each token."""
        for token in tokens:
            self.event(chunk({"content": token}))

    def finish(self, *, finish_reason: str = "stop", usage: object = USAGE) -> None:
        """End the answer well."""
        self.event(chunk({}, finish_reason=finish_reason))
        is_wanted = self.request.body.get("stream_options", {}).get("include_usage")
        if usage is not None and is_wanted:
            self.event({**chunk({}), "choices": [], "usage": usage})
        self.send(b"data: [DONE]\n\n")
        self.end()

    def end(self) -> None:
        """End the stream as HTTP has it."""
        self._handler.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Close the connection where it is."""
        self._handler.close_connection = True
        reset(self._handler.connection)

    def hold(self) -> bool:
        """Wait for `go`; return False, and note it, when the client leaves before."""
        for _ in range(int(WAIT_S / 0.01)):
            if self.server.go.is_set():
                return not self.server.is_killed
            readable, _, _ = select.select([self._handler.connection], [], [], 0.01)
            if readable and not self._is_open():
                self.server.left.set()
                return False
        raise TimeoutError("nobody said go")

    def _is_open(self) -> bool:
        try:
            return bool(self._handler.connection.recv(1, socket.MSG_PEEK))
        except OSError:
            return False


Behaviour = Callable[[Exchange], None]


def chunk(delta: Mapping[str, Any], **choice: Any) -> dict[str, Any]:
    """One `chat.completion.chunk` of OpenAI's."""
    made = {"index": 0, "delta": delta, "finish_reason": None, **choice}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-test",
        "choices": [made],
    }


def say(
    *tokens: str, finish_reason: str = "stop", usage: object = USAGE, kind: str | None = None
) -> Behaviour:
    """Answer well; `usage` only where the request asked for it, and not at all when it is None."""

    def behave(exchange: Exchange) -> None:
        exchange.begin(kind or "text/event-stream")
        exchange.event(chunk({"role": "assistant", "content": ""}))
        exchange.tokens(*tokens)
        exchange.finish(finish_reason=finish_reason, usage=usage)

    return behave


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"

    def __init__(self, server: OpenAiServer, *args: object) -> None:
        self._openai = server
        super().__init__(*args)  # type: ignore[arg-type]  # request, address and server

    def setup(self) -> None:
        super().setup()
        self._openai.connections.add(self.connection)
        self._openai.accepted += 1

    def finish(self) -> None:
        self._openai.connections.discard(self.connection)
        try:
            super().finish()
        except OSError:
            return  # the client has left
        finally:
            self._openai.ended.set()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Recorded(path=self.path, headers=headers, body=body)
        try:
            self._openai.note(request)(Exchange(self._openai, self, request))
        except OSError:
            self.close_connection = True  # the client has left

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Stay silent; `requests` has it."""
