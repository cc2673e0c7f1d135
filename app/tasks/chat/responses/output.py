"""The items of an answer as they grow piece by piece, and the events that tell of it."""

from collections import deque
from collections.abc import Iterator
from typing import Any

from app.engines.chat_base import Generation
from app.engines.thoughts import Thought
from app.engines.tool_calls import Piece, ToolCallPiece, new_call_id
from app.errors import UpstreamFailedError

# Why a generation ended before its model was ready, as responses call it.
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
Event = dict[str, Any]
Item = dict[str, Any]


class Output:
    """The output of one response; items have ids that say which response has them.

    Args:
        key: what the response's id ends with.

    """

    def __init__(self, key: str) -> None:
        self._key = key
        self.items: list[Item] = []
        self._pieces: list[str] = []  # of the last item's text or arguments
        self._calls: dict[int, int] = {}  # places in `items`, by the calls' own numbers
        self._is_open = False

    def add(self, piece: Piece) -> Iterator[Event]:
        """Take the next piece; yield its events.

        Raises:
            UpstreamFailedError: it belongs to a call that is over, as no server should send it.

        """
        if isinstance(piece, ToolCallPiece):
            yield from self._add_call(piece)
        elif isinstance(piece, Thought):
            yield from self._add_thought(piece.text)
        elif piece:
            yield from self._add_text(piece)

    def take(self, generation: Generation) -> None:
        """Take a whole answer, whose events nobody reads."""
        calls = [
            ToolCallPiece(index=number, id=call.id, name=call.name, arguments=call.arguments)
            for number, call in enumerate(generation.tool_calls)
        ]
        thoughts = [Thought(generation.thoughts)] if generation.thoughts else []
        pieces: list[Piece] = [*thoughts, generation.text, *calls]
        for piece in pieces:
            deque(self.add(piece), maxlen=0)
        deque(self.close(generation), maxlen=0)

    def close(self, generation: Generation) -> Iterator[Event]:
        """End the last item; yield its events. An answer has one item at least, if empty."""
        if not self.items:
            yield from self._begin_text()
        yield from self._end(
            "incomplete" if generation.finish_reason in INCOMPLETE else "completed"
        )

    def _add_text(self, text: str) -> Iterator[Event]:
        if not self._is_open or self.items[-1]["type"] != "message":
            yield from self._begin_text()
        self._pieces.append(text)
        yield self._event("response.output_text.delta", content_index=0, delta=text, logprobs=[])

    def _begin_text(self) -> Iterator[Event]:
        item = {"type": "message", "status": "in_progress", "role": "assistant", "content": []}
        yield from self._begin("msg", item)
        yield self._event("response.content_part.added", content_index=0, part=_part(""))

    def _add_thought(self, text: str) -> Iterator[Event]:
        if not self._is_open or self.items[-1]["type"] != "reasoning":
            item = {"type": "reasoning", "status": "in_progress", "summary": [], "content": []}
            yield from self._begin("rs", item)
            yield self._event("response.content_part.added", content_index=0, part=_thoughts(""))
        self._pieces.append(text)
        yield self._event("response.reasoning_text.delta", content_index=0, delta=text)

    def _add_call(self, piece: ToolCallPiece) -> Iterator[Event]:
        if piece.index not in self._calls:
            item = {
                "type": "function_call",
                "status": "in_progress",
                "call_id": piece.id or new_call_id(),
                "name": piece.name or "",
                "arguments": "",
            }
            yield from self._begin("fc", item)
            self._calls[piece.index] = len(self.items) - 1
        elif self._calls[piece.index] != len(self.items) - 1:
            raise UpstreamFailedError
        if piece.arguments:
            self._pieces.append(piece.arguments)
            yield self._event("response.function_call_arguments.delta", delta=piece.arguments)

    def _begin(self, kind: str, item: Item) -> Iterator[Event]:
        yield from self._end("completed")
        item_id = f"{kind}_{self._key}{len(self.items):02x}"
        self.items.append({"id": item_id, **item})
        self._pieces, self._is_open = [], True
        # A copy: what a client was told doesn't change with the item.
        yield self._of_item("response.output_item.added", item={**self.items[-1]})

    def _end(self, status: str) -> Iterator[Event]:
        if not self._is_open:
            return
        item, text, self._is_open = self.items[-1], "".join(self._pieces), False
        item["status"] = status
        if item["type"] == "reasoning":
            item["content"] = [_thoughts(text)]
            yield self._event("response.reasoning_text.done", content_index=0, text=text)
            yield self._event("response.content_part.done", content_index=0, part=_thoughts(text))
        elif item["type"] == "message":
            item["content"] = [_part(text)]
            done = "response.output_text.done"
            yield self._event(done, content_index=0, text=text, logprobs=[])
            yield self._event("response.content_part.done", content_index=0, part=_part(text))
        else:
            item["arguments"] = text
            done = "response.function_call_arguments.done"
            yield self._event(done, name=item["name"], arguments=text)
        yield self._of_item("response.output_item.done", item=item)

    def _event(self, kind: str, **fields: object) -> Event:
        return self._of_item(kind, item_id=self.items[-1]["id"], **fields)

    def _of_item(self, kind: str, **fields: object) -> Event:
        return {"type": kind, "output_index": len(self.items) - 1, **fields}


def _thoughts(text: str) -> dict[str, Any]:
    return {"type": "reasoning_text", "text": text}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
