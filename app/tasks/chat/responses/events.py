"""The events of a streamed response, in OpenAI's order and with its numbers."""

from collections.abc import Iterable, Sequence
from itertools import count

from pydantic_core import to_json

from app.engines.chat_base import Generation
from app.engines.tool_calls import Piece
from app.errors import ServiceError
from app.tasks.chat.dialects import Dialect
from app.tasks.chat.responses.answer import ResponseFailure, ResponseObject
from app.tasks.chat.responses.output import Event
from app.tasks.chat.responses.turns import Turn, Turns


class ResponsesDialect(Dialect):
    """Writes one response as server-sent events, each with its name and number.

    Args:
        turn: whose output grows with the stream.
        turns: keep it before its last event, so that a client can go on from it at once.

    """

    media_type = "text/event-stream"

    def __init__(self, turn: Turn, turns: Turns) -> None:
        self._turn = turn
        self._turns = turns
        self._numbers = count()
        self._response: ResponseObject = turn.begun(turn.body.model or "")
        self._closing: Sequence[Event] = ()

    def begin(self, model: str, pieces: Sequence[Piece]) -> bytes:  # noqa: ARG002  # as the protocol has it
        """Return the events that show the response without output."""
        self._response = self._turn.begun(model)
        return self._state("response.created") + self._state("response.in_progress")

    def pieces(self, pieces: Iterable[Piece]) -> bytes:
        """Return the events of some pieces."""
        return self._lines(event for piece in pieces for event in self._turn.output.add(piece))

    def heartbeat(self) -> bytes:
        """Return a comment, which clients ignore."""
        return b": alive\n\n"

    async def keep(self, generation: Generation) -> None:
        """Keep the response, which is whole now."""
        self._closing = [*self._turn.output.close(generation)]
        self._response = await self._turns.end(self._turn, self._response.model, generation)

    def finish(self, generation: Generation) -> bytes:  # noqa: ARG002  # `keep` has had it
        """Return the events that end the last item and the response."""
        return self._lines(self._closing) + self._state(f"response.{self._response.status}")

    def fail(self, error: ServiceError) -> bytes:
        """Return the event with the error; what has come of the output is in it."""
        failed = {
            "status": "failed",
            "error": ResponseFailure(code=error.code, message=error.detail),
            "output": self._turn.output.items,
            "store": False,
        }
        self._response = self._response.model_copy(update=failed)
        return self._state("response.failed")

    def _state(self, kind: str) -> bytes:
        return self._lines([{"type": kind, "response": self._response}])

    def _lines(self, events: Iterable[Event]) -> bytes:
        return b"".join(self._line(event) for event in events)

    def _line(self, event: Event) -> bytes:
        """Return one event; in ASCII, as some clients end a line at U+2028."""
        content = {**event, "sequence_number": next(self._numbers)}
        name: str = event["type"]
        return f"event: {name}\ndata: ".encode() + to_json(content, ensure_ascii=True) + b"\n\n"
