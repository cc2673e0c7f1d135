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
from app.http.deps import ChatDeadlineDep, RuntimeDep
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.openai_fields import done, foreign_fields
from app.http.problems import WITH_BODY, WITH_CHAT, WITH_KEY, openai_problems
from app.services.streaming import CHAT_MODELS, Conversation
from app.tasks.chat.accounting import Account, AccountDep
from app.tasks.chat.dialects import OpenAiDialect, logprobs_of, openai_usage
from app.tasks.chat.many import ManyStreams, answer_all, charged, check_answers
from app.tasks.chat.openai_answers import AssistantMessage, ChatCompletion, Choice
from app.tasks.chat.openai_schemas import ChatCompletionRequest, ResponseFormat
from app.tasks.chat.openai_tools import AnsweredToolCall, ToolChoice
from app.tasks.chat.routes import ChatDep
from app.tasks.chat.streams import StreamResponse

router = APIRouter(prefix="/v1", tags=["openai"], route_class=JsonRoute)
# OpenAI takes any number; llama.cpp takes 32 bits, and the highest value means a random seed.
SEEDS = 2**32 - 1
# Options that engines know by the same names.
SAME = (
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "logit_bias",
    "top_k",
    "min_p",
    "ignore_eos",
    "reasoning_effort",
    "logprobs",
    "top_logprobs",
    "chat_template_kwargs",
)
DONE = frozenset(done(ChatCompletionRequest))
# What Hugging Face's clients send where no model is named; that in JavaScript sends the address.
NO_NAME = frozenset({"dummy", "tgi"})
ADDRESSES = ("http://", "https://")
CHUNK = (
    'data: {"id":"chatcmpl-0b9a","object":"chat.completion.chunk","created":1795348800,'
    '"model":"smollm2","choices":[{"index":0,"delta":{"content":"The"},"finish_reason":null}]}\n\n'
    "data: [DONE]\n\n"
)


def streamed(chunk: str) -> dict[int | str, dict[str, Any]]:
    """Return what the document says of an answer that may be streamed."""
    return {
        200: {
            "description": "The answer; with `stream` as chunks, and `[DONE]` after the last.",
            # Without a schema: some tools check it against each event, others against the body.
            "content": {"text/event-stream": {"example": chunk}},
        }
    }


def seed_of(seed: int | None, number: int) -> int | None:
    """Return the seed of one of several answers, which shall differ."""
    return None if seed is None else (seed + number) % SEEDS


async def _conversation(
    body: ChatCompletionRequest, account: Account, number: int = 0
) -> Conversation:
    messages = [message.message() for message in body.messages]
    tools = tuple(tool.sent for tool in body.tools or ())
    return Conversation(
        messages=messages,
        model_name=body.model,
        options=GenerationOptions(
            max_tokens=body.max_completion_tokens or body.max_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            seed=seed_of(body.seed, number),
            stop=tuple(body.stop or ()),
            response_format=_format(body.response_format),
            tools=tools,
            tool_choice=_choice(body.tool_choice),
            parallel_tool_calls=body.parallel_tool_calls,
            **{name: getattr(body, name) for name in SAME},
            sent=_relayed(body),
            foreign=tuple(foreign_fields(body)),
        ),
        on_end=await account(messages, tools),
    )


def _relayed(body: ChatCompletionRequest) -> dict[str, Any]:
    """Return what a remote server gets as it was sent: all that this service doesn't do itself."""
    return {k: v for k, v in body.sent.items() if k not in DONE and v is not None}


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
        reasoning_content=generation.thoughts or None,
    )


@router.post(
    "/chat/completions",
    summary="Answer a conversation",
    responses=openai_problems(*WITH_BODY, *WITH_KEY, *WITH_CHAT, UnsupportedFieldError)
    | streamed(CHUNK),
    dependencies=[Depends(Guard(Scope.CHAT))],
    response_model=ChatCompletion,
)
async def complete_chat(
    body: ChatCompletionRequest,
    chat: ChatDep,
    deadline: ChatDeadlineDep,
    account: AccountDep,
    runtime: RuntimeDep,
) -> ChatCompletion | Response:
    """Answer whole, or with `stream` token by token; leaving stops the generation."""
    name = body.model or ""
    is_none = name in NO_NAME or name.startswith(ADDRESSES)
    if is_none and runtime.registry.spec(name, CHAT_MODELS) is None:
        body = body.model_copy(update={"model": None})
    count = body.n or 1
    check_answers(count, runtime.policy.chat_max_answers)
    asked = await charged(_conversation(body, account, number) for number in range(count))
    chat_id, created_s = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
    if body.stream:
        options = body.stream_options
        has_usage = bool(options and options.include_usage)
        dialects = [
            OpenAiDialect(chat_id=chat_id, created_s=created_s, has_usage=has_usage, index=index)
            for index in range(count)
        ]
        if count == 1:
            return StreamResponse(chat, asked[0], deadline=deadline, dialect=dialects[0])
        return ManyStreams(chat, asked, deadline=deadline, dialects=dialects)
    answers = await answer_all(chat, asked, deadline=deadline)
    generations = [answer.generation for answer in answers]
    return ChatCompletion(
        id=chat_id,
        created=created_s,
        model=answers[0].model,
        choices=[
            Choice(
                index=index,
                message=_message(generation),
                logprobs=logprobs_of(generation.scores),
                finish_reason=generation.finish_reason,
            )
            for index, generation in enumerate(generations)
        ],
        usage=openai_usage(*generations),
    )
