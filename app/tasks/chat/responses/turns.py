"""One request of `/v1/responses`: what came before it, what it says, and what is kept of it."""

import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic_core import from_json, to_json

from app.core.callers import Caller
from app.engines.chat_base import Generation, Message
from app.errors import (
    InvalidRequestError,
    ItemNotFoundError,
    PreviousResponseNotFoundError,
    ResponseNotFoundError,
)
from app.services.kept_responses import KeptResponses
from app.tasks.chat.responses.answer import ResponseObject, begun, ended
from app.tasks.chat.responses.items import (
    FunctionCallItem,
    FunctionOutputItem,
    Item,
    ItemReference,
    messages_of,
    read_items,
)
from app.tasks.chat.responses.output import Output
from app.tasks.chat.responses.request import ResponseRequest

PREFIX = "resp_"
# As `Output` makes them: after the kind the response's key, then the item's number.
OUTPUT_ITEM = re.compile(r"(?:msg|fc|rs)_([0-9a-f]{32})[0-9a-f]{2,}")
KINDS = {"function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
MAX_ID_CHARS = 128

RawItem = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A request with all that came before it, and its growing answer."""

    body: ResponseRequest
    before: Sequence[RawItem]
    items: Sequence[RawItem]  # of this request, each with an id
    messages: Sequence[Message]
    key: str
    created_s: int = field(default_factory=lambda: int(time.time()))
    output: Output

    def begun(self, model: str) -> ResponseObject:
        """Return the response without output."""
        return begun(
            self.body, response_id=PREFIX + self.key, created_s=self.created_s, model=model
        )

    def ended(self, model: str, generation: Generation, *, is_kept: bool) -> ResponseObject:
        """Return the response with its output, which has been closed."""
        return ended(
            self.begun(model),
            generation,
            output=self.output.items,
            completed_at=int(time.time()),
            store=is_kept,
        )

    def record(self, response: ResponseObject) -> bytes:
        """Return what is kept."""
        kept = {"response": response, "before": self.before, "input": self.items}
        return to_json(kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTurn:
    """A request and its answer, as they were kept."""

    response: dict[str, Any]
    before: Sequence[RawItem]
    items: Sequence[RawItem]

    @property
    def all_items(self) -> Sequence[RawItem]:
        """What the next turn goes on from."""
        return [*self.before, *self.items, *self.response["output"]]


class Turns:
    """Begins the turns of one caller, and keeps their responses.

    Args:
        kept: of all callers.
        caller: sees none but its own.

    """

    def __init__(self, kept: KeptResponses, caller: Caller) -> None:
        self._kept = kept
        # Names may be anything, numbers are keys of the table.
        self._owner = str(caller.key_id) if caller.key_id is not None else f"name:{caller.name}"

    async def begin(self, body: ResponseRequest) -> Turn:
        """Return the turn of a request.

        Raises:
            PreviousResponseNotFoundError, ItemNotFoundError: what it refers to isn't kept.
            ResponsesUnavailableError: what keeps it doesn't answer.
            InvalidRequestError: an output of a call that wasn't made, or no message.

        """
        key = uuid.uuid4().hex
        before = await self._before(body.previous_response_id)
        sent = _sent_items(body.sent["input"])
        items = [
            await self._item(item, raw, number=number, key=key)
            for number, (item, raw) in enumerate(zip(body.input, sent, strict=True))
        ]
        read = read_items([*before, *items])
        _check_outputs(read)
        messages = messages_of(read, instructions=body.instructions)
        if not messages:  # reasoning alone, for instance
            raise _invalid("Input should have a message", "no_message")
        return Turn(
            body=body,
            before=before,
            items=items,
            messages=messages,
            key=key,
            output=Output(key),
        )

    async def end(self, turn: Turn, model: str, generation: Generation) -> ResponseObject:
        """Return the response, and keep it where that is asked for and possible."""
        response = turn.ended(model, generation, is_kept=turn.body.is_kept)
        if not turn.body.is_kept:
            return response
        is_kept = await self._kept.put(self._owner, response.id, turn.record(response))
        return response.model_copy(update={"store": is_kept})

    async def read(self, response_id: str) -> KeptTurn:
        """Return a kept turn.

        Raises:
            ResponseNotFoundError: it isn't kept for this caller.
            ResponsesUnavailableError: what keeps it doesn't answer.

        """
        found = await self._find(response_id)
        if found is None:
            raise ResponseNotFoundError
        return found

    async def delete(self, response_id: str) -> None:
        """Forget a turn. Raises as `read`."""
        is_id = len(response_id) <= MAX_ID_CHARS
        if not is_id or not await self._kept.delete(self._owner, response_id):
            raise ResponseNotFoundError

    async def _find(self, response_id: str) -> KeptTurn | None:
        if len(response_id) > MAX_ID_CHARS:
            return None
        record = await self._kept.get(self._owner, response_id)
        if record is None:
            return None
        kept = from_json(record)
        return KeptTurn(response=kept["response"], before=kept["before"], items=kept["input"])

    async def _before(self, response_id: str | None) -> Sequence[RawItem]:
        if response_id is None:
            return ()
        previous = await self._find(response_id)
        if previous is None:
            raise PreviousResponseNotFoundError
        return previous.all_items

    async def _item(self, item: Item, raw: RawItem, *, number: int, key: str) -> RawItem:
        """Return what an item is or refers to, with an id."""
        if isinstance(item, ItemReference):
            return await self._referred(item.id, number=number)
        own_id = raw.get("id") or f"{KINDS.get(item.type, 'msg')}_{key}i{number:02x}"
        return {**raw, "type": item.type, "id": own_id}

    async def _referred(self, item_id: str, *, number: int) -> RawItem:
        match = OUTPUT_ITEM.fullmatch(item_id)
        found = await self._find(PREFIX + match.group(1)) if match else None
        for item in found.response["output"] if found else ():
            if item["id"] == item_id:
                return cast("RawItem", item)
        raise ItemNotFoundError(f"input[{number}]")


def _sent_items(sent: str | list[RawItem]) -> list[RawItem]:
    if isinstance(sent, str):
        content = [{"type": "input_text", "text": sent}]
        return [{"type": "message", "role": "user", "content": content}]
    return sent


def _check_outputs(items: Sequence[Item]) -> None:
    """Refuse outputs of calls that no item before them made."""
    called: set[str] = set()
    for item in items:
        if isinstance(item, FunctionCallItem):
            called.add(item.call_id)
        if isinstance(item, FunctionOutputItem) and item.call_id not in called:
            # OpenAI's words.
            text = f"No tool call found for function call output with call_id {item.call_id[:64]}."
            raise _invalid(text, "no_call")


def _invalid(text: str, kind: str) -> InvalidRequestError:
    return InvalidRequestError([{"loc": ["body", "input"], "msg": text, "type": kind}])
