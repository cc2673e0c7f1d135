"""`/chat` and `/chat/stream`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from app.core.callers import Scope
from app.core.logs import request_id
from app.http.deps import ChatDeadlineDep, RegistryDep, RuntimeDep
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_CHAT, WITH_KEY, problems
from app.services.streaming import ChatService, Conversation
from app.tasks.chat.accounting import Account, AccountDep
from app.tasks.chat.conversations import conversation_of, messages_of
from app.tasks.chat.dialects import NdjsonDialect, SseDialect, usage_of
from app.tasks.chat.schemas import ChatRequest, ChatResponse
from app.tasks.chat.streams import StreamResponse

router = APIRouter(tags=["chat"], route_class=JsonRoute, dependencies=[Depends(Guard(Scope.CHAT))])
RESPONSES = problems(*WITH_BODY, *WITH_KEY, *WITH_CHAT)
LINES = (
    '{"token":"The"}\n{"token":" capital"}\n'
    '{"token":"","done":true,"finish_reason":"length",'
    '"usage":{"prompt_tokens":27,"completion_tokens":2,"total_tokens":29}}\n'
)
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Tokens as they are generated: one JSON object a line, each with a `token`;"
        " the last has `done`, and `finish_reason` with `usage`, or an `error` (a problem)."
        " With `Accept: text/event-stream` the same objects as server-sent events.",
        "content": {
            "application/x-ndjson": {"schema": {"type": "string"}, "example": LINES},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
}


async def get_chat(registry: RegistryDep, runtime: RuntimeDep) -> ChatService:
    """Return the chat service over the registry in force."""
    return ChatService(registry, buffer_tokens=runtime.policy.stream_buffer_tokens)


ChatDep = Annotated[ChatService, Depends(get_chat)]


async def _conversation(body: ChatRequest, account: Account) -> Conversation:
    return conversation_of(body, on_end=await account(messages_of(body), ()))


@router.post("/chat", summary="Answer a conversation", responses=RESPONSES)
async def answer_chat(
    body: ChatRequest, chat: ChatDep, deadline: ChatDeadlineDep, account: AccountDep
) -> ChatResponse:
    """Answer a question or a conversation, whole."""
    answer = await chat.answer(await _conversation(body, account), deadline=deadline)
    return ChatResponse(
        answer=answer.generation.text,
        finish_reason=answer.generation.finish_reason,
        usage=usage_of(answer.generation),
        model=answer.model,
    )


@router.post(
    "/chat/stream",
    summary="Answer a conversation token by token",
    responses=RESPONSES | STREAMED,
    response_class=Response,
)
async def stream_chat(
    body: ChatRequest,
    chat: ChatDep,
    deadline: ChatDeadlineDep,
    account: AccountDep,
    request: Request,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> StreamResponse:
    """Answer token by token; leaving stops the generation."""
    dialect = SseDialect if SseDialect.media_type in accept.lower() else NdjsonDialect
    return StreamResponse(
        chat,
        await _conversation(body, account),
        deadline=deadline,
        dialect=dialect(path=request.url.path, request_id=request_id.get()),
    )
