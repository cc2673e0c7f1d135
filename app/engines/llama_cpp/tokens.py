"""A GGUF model's own tokeniser, which llama.cpp offers over HTTP on loopback alone."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from threading import BoundedSemaphore
from typing import Any

CONNECTIONS = 4  # kept open; each holds one of the server's threads
TIMEOUT_S = 30.0
TRIES = 2  # a connection that the server has closed meanwhile is no failure
PATH = "/tokenize"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token of a text: its id, and the bytes that it stands for."""

    id: int
    piece: bytes


class LlamaTokenizer:
    """Tokenises texts; may be called in any thread.

    Args:
        address: of the server, `http://host:port`.
        key: that it wants.

    """

    def __init__(self, address: str, key: str) -> None:
        self._host = address.removeprefix("http://")
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._idle: deque[HTTPConnection] = deque()
        self._free = BoundedSemaphore(CONNECTIONS)

    def ids(self, text: str, *, whole: bool = False, special: bool = True) -> list[int]:
        """Return the ids of a text's tokens.

        Args:
            text: of any length.
            whole: with the tokens that the model wants before and behind each text.
            special: a special token that is spelt in the text is one, as in transformers.

        Raises:
            RuntimeError: llama.cpp didn't answer, or refused.

        """
        answer = self._ask({"content": text, "add_special": whole, "parse_special": special})
        ids: list[int] = answer["tokens"]
        return ids

    def tokens(self, text: str, *, special: bool = True) -> list[Token]:
        """Return a text's tokens with what each stands for; raises as `ids`."""
        answer = self._ask({"content": text, "parse_special": special, "with_pieces": True})
        return [Token(id=token["id"], piece=_bytes(token["piece"])) for token in answer["tokens"]]

    def close(self) -> None:
        """Close the connections; called once, when no call is running."""
        while self._idle:
            self._idle.pop().close()

    def _ask(self, body: Mapping[str, Any]) -> Any:  # noqa: ANN401  # JSON
        content = json.dumps(body)
        with self._free:
            for _ in range(TRIES - 1):
                with suppress(OSError, HTTPException):
                    return self._ask_once(content)
            try:
                return self._ask_once(content)
            except (OSError, HTTPException) as failure:
                name = type(failure).__name__
                raise RuntimeError(f"llama.cpp's tokeniser doesn't answer: {name}") from failure

    def _ask_once(self, content: str) -> Any:  # noqa: ANN401  # JSON
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = HTTPConnection(self._host, timeout=TIMEOUT_S)
        try:
            connection.request("POST", PATH, content, self._headers)
            answer = connection.getresponse()
            answered = answer.read()
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        if answer.status != HTTPStatus.OK:
            raise RuntimeError(f"llama.cpp's tokeniser answered {answer.status}")
        return json.loads(answered)


def _bytes(piece: str | Sequence[int]) -> bytes:
    """Return a piece's bytes: those of a part of a character come as numbers."""
    return piece.encode() if isinstance(piece, str) else bytes(piece)
