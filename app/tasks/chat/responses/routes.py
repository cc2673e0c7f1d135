"""`/v1/responses`: chat whose turns are kept, in OpenAI's newer dialect."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Response

from app.core.callers import Scope
from app.errors import (
    InvalidRequestError,
    ItemNotFoundError,
    PreviousResponseNotFoundError,
    ResponseNotFoundError,
    ResponsesUnavailableError,
    UnsupportedFieldError,
)
from app.http.deps import ChatDeadlineDep, part
from app.http.guard import CallerDep, Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_CHAT, WITH_KEY, openai_problems
from app.services.kept_responses import ResponseKeeper
from app.services.streaming import Conversation
from app.tasks.chat.accounting import AccountDep
from app.tasks.chat.responses.answer import EXAMPLE, DeletedResponse, ItemList, ResponseObject
from app.tasks.chat.responses.events import ResponsesDialect
from app.tasks.chat.responses.request import ResponseRequest
from app.tasks.chat.responses.turns import Turns
from app.tasks.chat.routes import ChatDep
from app.tasks.chat.streams import StreamResponse

router = APIRouter(
    prefix="/v1/responses",
    tags=["openai"],
    route_class=JsonRoute,
    dependencies=[Depends(Guard(Scope.CHAT))],
)
KeeperDep = Annotated[ResponseKeeper, Depends(part(ResponseKeeper))]


async def get_turns(keeper: KeeperDep, caller: CallerDep) -> Turns:
    """Return what begins and keeps the caller's turns."""
    return Turns(keeper.responses, caller)


TurnsDep = Annotated[Turns, Depends(get_turns)]
ResponseId = Annotated[str, Path(examples=[EXAMPLE["id"]])]
EVENT = (
    "event: response.output_text.delta\n"
    'data: {"type":"response.output_text.delta","output_index":0,"content_index":0,'
    '"item_id":"msg_0b9a","delta":"The","logprobs":[],"sequence_number":4}\n\n'
)
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The response; with `stream` as events, the last of which has it whole.",
        # Without a schema: some tools check it against each event, others against the whole body.
        "content": {"text/event-stream": {"example": EVENT}},
    }
}
KEPT = openai_problems(*WITH_KEY, ResponseNotFoundError, ResponsesUnavailableError)


@router.post(
    "",
    summary="Answer a text or items",
    responses=openai_problems(
        *WITH_BODY,
        *WITH_KEY,
        *WITH_CHAT,
        UnsupportedFieldError,
        PreviousResponseNotFoundError,
        ItemNotFoundError,
        ResponsesUnavailableError,
    )
    | STREAMED,
    response_model=ResponseObject,
)
async def create_response(
    body: ResponseRequest,
    chat: ChatDep,
    deadline: ChatDeadlineDep,
    account: AccountDep,
    turns: TurnsDep,
) -> ResponseObject | Response:
    """Answer whole, or with `stream` event by event; leaving stops the generation."""
    turn = await turns.begin(body)
    options = body.options()
    conversation = Conversation(
        messages=turn.messages,
        model_name=body.model,
        options=options,
        on_end=await account(turn.messages, options.tools),
    )
    if body.stream:
        dialect = ResponsesDialect(turn, turns)
        return StreamResponse(chat, conversation, deadline=deadline, dialect=dialect)
    answer = await chat.answer(conversation, deadline=deadline)
    turn.output.take(answer.generation)
    return await turns.end(turn, answer.model, answer.generation)


@router.get("/{response_id}", summary="Show a kept response", responses=KEPT)
async def show_response(response_id: ResponseId, turns: TurnsDep) -> ResponseObject:
    """Show a response of the caller's that is still kept."""
    kept = await turns.read(response_id)
    return ResponseObject(**kept.response)


@router.get(
    "/{response_id}/input_items",
    summary="List a kept response's input",
    responses=openai_problems(
        *WITH_KEY, InvalidRequestError, ResponseNotFoundError, ResponsesUnavailableError
    ),
)
async def list_input_items(
    response_id: ResponseId,
    turns: TurnsDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(description="The id of the item before the page.")] = None,
) -> ItemList:
    """List what the request of a kept response said; what came before it isn't there."""
    items = [dict(item) for item in (await turns.read(response_id)).items]
    return page_of(items if order == "asc" else items[::-1], limit=limit, after=after)


@router.delete("/{response_id}", summary="Delete a kept response", responses=KEPT)
async def delete_response(response_id: ResponseId, turns: TurnsDep) -> DeletedResponse:
    """Delete a response; those that go on from it stay, with the conversation until then."""
    await turns.delete(response_id)
    return DeletedResponse(id=response_id)


def page_of(items: list[dict[str, Any]], *, limit: int, after: str | None) -> ItemList:
    """Return the items that follow one; all if there is none with this id."""
    ids = [item["id"] for item in items]
    start = ids.index(after) + 1 if after in ids else 0
    return ItemList.of(items[start : start + limit], has_more=start + limit < len(items))
