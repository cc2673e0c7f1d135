"""`/v1/chat/completions`: chat in OpenAI's dialect."""

import time
import uuid
from typing import Any

from fastapi import APIRouter, Depends, Response

from app.core.callers import Scope
from app.engines.chat_base import Generation, GenerationOptions
from app.errors import (
    UnsupportedFieldError,
)
from app.http.deps import ChatDeadlineDep, RegistryDep
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_CHAT, WITH_KEY, openai_problems
from app.services.streaming import CHAT_MODELS, Conversation
from app.tasks.chat.accounting import Account, AccountDep
from app.tasks.chat.dialects import OpenAiDialect, openai_usage
from app.tasks.chat.openai_schemas import (
    AssistantMessage,
    ChatCompletion,
    ChatCompletionRequest,
    Choice,
    ResponseFormat,
)
from app.tasks.chat.openai_tools import AnsweredToolCall, ToolChoice
from app.tasks.chat.routes import ChatDep
from app.tasks.chat.streams import StreamResponse

router = APIRouter(prefix="/v1", tags=["openai"], route_class=JsonRoute)
# OpenAI takes any number; llama.cpp takes 32 bits, and the highest value means a random seed.
SEEDS = 2**32 - 1
# What Hugging Face's clients send where no model is named.
NO_NAME = frozenset({"dummy", "tgi"})
CHUNK = (
    'data: {"id":"chatcmpl-0b9a","object":"chat.completion.chunk","created":1795348800,'
    '"model":"smollm2","choices":[{"index":0,"delta":{"content":"The"},"finish_reason":null}]}\n\n'
    "data: [DONE]\n\n"
)
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream` as chunks, and `[DONE]` after the last.",
        # Without a schema: some tools check it against each event, others against the whole body.
        "content": {"text/event-stream": {"example": CHUNK}},
    }
}


async def _conversation(body: ChatCompletionRequest, account: Account) -> Conversation:
    messages = [message.message() for message in body.messages]
    return Conversation(
        messages=messages,
        model_name=body.model,
        options=GenerationOptions(
            max_tokens=body.max_completion_tokens or body.max_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            seed=None if body.seed is None else body.seed % SEEDS,
            stop=tuple(body.stop or ()),
            response_format=_format(body.response_format),
            tools=tuple(tool.sent for tool in body.tools or ()),
            tool_choice=_choice(body.tool_choice),
            parallel_tool_calls=body.parallel_tool_calls,
        ),
        on_end=await account(messages),
    )


def _format(response_format: ResponseFormat | None) -> dict[str, Any] | None:
    """Return the format that the engine has to write; None for plain text."""
    if response_format is None or response_format.type == "text":
        return None
    return response_format.sent


def _choice(choice: ToolChoice) -> str | dict[str, Any] | None:
    return choice if choice is None or isinstance(choice, str) else choice.sent


def _message(generation: Generation) -> AssistantMessage:
    calls = [AnsweredToolCall.of(call) for call in generation.tool_calls]
    return AssistantMessage(
        content=None if calls and not generation.text else generation.text,
        tool_calls=calls or None,
    )


@router.post(
    "/chat/completions",
    summary="Answer a conversation",
    responses=openai_problems(*WITH_BODY, *WITH_KEY, *WITH_CHAT, UnsupportedFieldError) | STREAMED,
    dependencies=[Depends(Guard(Scope.CHAT))],
    response_model=ChatCompletion,
)
async def complete_chat(
    body: ChatCompletionRequest,
    chat: ChatDep,
    deadline: ChatDeadlineDep,
    account: AccountDep,
    registry: RegistryDep,
) -> ChatCompletion | Response:
    """Answer whole, or with `stream` token by token; leaving stops the generation."""
    if body.model in NO_NAME and registry.spec(body.model, CHAT_MODELS) is None:
        body = body.model_copy(update={"model": None})
    conversation = await _conversation(body, account)
    chat_id, created_s = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
    if body.stream:
        options = body.stream_options
        has_usage = bool(options and options.include_usage)
        dialect = OpenAiDialect(chat_id=chat_id, created_s=created_s, has_usage=has_usage)
        return StreamResponse(chat, conversation, deadline=deadline, dialect=dialect)
    answer = await chat.answer(conversation, deadline=deadline)
    message = _message(answer.generation)
    return ChatCompletion(
        id=chat_id,
        created=created_s,
        model=answer.model,
        choices=[Choice(message=message, finish_reason=answer.generation.finish_reason)],
        usage=openai_usage(answer.generation),
    )
