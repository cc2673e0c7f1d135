"""Reads calls of tools out of the text in which a model writes them, while it comes."""

import re
from collections.abc import Iterator, Sequence

from app.engines.chat_base import OnToken
from app.engines.llama_cpp.tool_prompt import CallStart
from app.engines.tool_calls import Piece, ToolCall, ToolCallJoiner, ToolCallPiece, new_call_id

HEAD = r'\s*\{\s*"name"\s*:\s*"([^"]*)"\s*,\s*"arguments"\s*:\s*(?=\S)'
FIRST = re.compile(rf"\s*\[?{HEAD}")
NEXT = re.compile(rf"\s*,{HEAD}")
ARGUMENTS = ',"arguments":'


class CallWatch:
    """Passes an answer on, unless it begins with a call: then it stops, and knows of which tool.

    Args:
        names: of the tools.
        on_token: takes the text.

    """

    def __init__(self, names: Sequence[str], on_token: OnToken) -> None:
        self._start = CallStart(names)
        self._on_token = on_token
        self._held: list[str] = []
        self._is_text = False

    @property
    def called(self) -> str | None:
        """The tool that the answer has begun to call."""
        return self._start.name

    def take(self, piece: Piece) -> bool:
        """Take the next piece; return whether to stop."""
        if self._is_text or not isinstance(piece, str):
            return self._on_token(piece)
        self._held.append(piece)
        found = self._start.take(piece)
        if found == "text":
            return self.flush()
        return self._on_token("") or found == "call"

    def flush(self) -> bool:
        """Pass on what was held back; return whether to stop."""
        self._is_text, held, self._held = True, "".join(self._held), []
        return self._on_token(held)


class CallReader:
    """Reads an answer that is held to be calls, or to be calls or a text.

    Args:
        names: of the tools.
        on_token: takes the pieces.
        may_be_text: whether the answer may be something else than calls.

    """

    def __init__(self, names: Sequence[str], on_token: OnToken, *, may_be_text: bool) -> None:
        self._start = CallStart(names, ARGUMENTS)
        self._on_token = on_token
        self._may_be_text = may_be_text
        self._is_text = False
        self._held = ""  # of the head of a call
        self._count = 0
        self._arguments: _Arguments | None = None  # of the call that is being read
        self._joiner = ToolCallJoiner()
        self.calls: tuple[ToolCall, ...] = ()

    def take(self, piece: Piece) -> bool:
        """Take the next text of the answer; return whether to stop."""
        is_stopped = self._on_token("")
        for part in self._read(piece) if isinstance(piece, str) else (piece,):
            if isinstance(part, ToolCallPiece):
                self._joiner.add(part)
            is_stopped = self._on_token(part) or is_stopped
        self.calls = self._joiner.calls
        return is_stopped

    def _read(self, text: str) -> Iterator[Piece]:
        while text:
            if self._is_text:
                yield text
                return
            if self._arguments is not None:
                read, is_over = self._arguments.read(text)
                text = text[len(read) + is_over :]
                # Space behind them is the call's, not theirs.
                kept = read.rstrip() if self._arguments.is_outside else read
                if kept:
                    yield ToolCallPiece(index=self._count - 1, arguments=kept)
                self._arguments = None if is_over else self._arguments
                continue
            may_be_text = self._may_be_text and not self._count
            is_text = may_be_text and self._start.take(text) == "text"
            self._held, text = self._held + text, ""
            head = (NEXT if self._count else FIRST).match(self._held)
            if is_text:
                self._is_text = True
                text, self._held = self._held, ""
            elif head is not None:
                self._count += 1
                self._arguments = _Arguments()
                self._held, text = "", self._held[head.end() :]
                yield ToolCallPiece(index=self._count - 1, id=new_call_id(), name=head[1])


class _Arguments:
    """Finds the end of a JSON value: the brace that closes the object around it."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_string = False
        self._is_escaped = False

    @property
    def is_outside(self) -> bool:
        """Whether nothing is open: no string, list or object."""
        return self._depth == 0 and not self._is_string

    def read(self, text: str) -> tuple[str, bool]:
        """Return what belongs to the value, and whether the brace behind it came."""
        for place, character in enumerate(text):
            if self._is_string:
                self._read_string(character)
            elif character == '"':
                self._is_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                if self._depth == 0:
                    return text[:place], True
                self._depth -= 1
        return text, False

    def _read_string(self, character: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif character == "\\":
            self._is_escaped = True
        elif character == '"':
            self._is_string = False
