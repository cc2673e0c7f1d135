"""`/v1/completions`: texts that a chat model goes on with."""

import time
import uuid

from fastapi import APIRouter, Depends, Response

from app.core.callers import Scope
from app.engines.chat_base import ForeignField, GenerationOptions, Message
from app.errors import UnsupportedFieldError
from app.http.deps import ChatDeadlineDep, RuntimeDep
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.openai_fields import foreign_fields
from app.http.problems import WITH_BODY, WITH_CHAT, WITH_KEY, openai_problems
from app.services.streaming import Answer, Conversation
from app.tasks.chat.accounting import Account, AccountDep
from app.tasks.chat.completion_dialect import CompletionDialect, completion_logprobs
from app.tasks.chat.completion_schemas import (
    DEFAULT_MAX_TOKENS,
    Completion,
    CompletionChoice,
    CompletionRequest,
)
from app.tasks.chat.dialects import openai_usage
from app.tasks.chat.many import ManyStreams, answer_all, charged, check_answers
from app.tasks.chat.openai_routes import seed_of, streamed
from app.tasks.chat.routes import ChatDep

router = APIRouter(prefix="/v1", tags=["openai"], route_class=JsonRoute)
NO_PROMPT = "a prompt's tokens have none; leave out `echo`"
CHUNK = (
    'data: {"id":"cmpl-0b9a","object":"text_completion","created":1795348800,"model":"smollm2",'
    '"choices":[{"index":0,"text":" time","logprobs":null,"finish_reason":null}]}\n\n'
    "data: [DONE]\n\n"
)


async def _conversation(
    body: CompletionRequest, prompt: str, number: int, account: Account
) -> Conversation:
    messages = [Message(role="user", content=prompt)]
    foreign = list(foreign_fields(body))
    if body.echo and body.logprobs is not None:
        foreign.append(ForeignField(path="logprobs", reason=NO_PROMPT))
    return Conversation(
        messages=messages,
        model_name=body.model,
        options=GenerationOptions(
            is_raw=True,
            max_tokens=body.max_tokens or DEFAULT_MAX_TOKENS,
            temperature=body.temperature,
            top_p=body.top_p,
            seed=seed_of(body.seed, number),
            stop=tuple(body.stop or ()),
            logprobs=body.logprobs is not None or None,
            top_logprobs=body.logprobs,
            frequency_penalty=body.frequency_penalty,
            presence_penalty=body.presence_penalty,
            repetition_penalty=body.repetition_penalty,
            logit_bias=body.logit_bias,
            top_k=body.top_k,
            min_p=body.min_p,
            ignore_eos=body.ignore_eos,
            foreign=tuple(foreign),
        ),
        on_end=await account(messages, ()),
    )


def _choice(answer: Answer, index: int, echo: str) -> CompletionChoice:
    generation = answer.generation
    return CompletionChoice(
        index=index,
        text=echo + generation.text,
        logprobs=completion_logprobs(generation.text, len(echo), generation.scores),
        finish_reason=generation.finish_reason,
    )


@router.post(
    "/completions",
    summary="Go on with a text",
    responses=openai_problems(*WITH_BODY, *WITH_KEY, *WITH_CHAT, UnsupportedFieldError)
    | streamed(CHUNK),
    dependencies=[Depends(Guard(Scope.CHAT))],
    response_model=Completion,
)
async def complete_text(
    body: CompletionRequest,
    chat: ChatDep,
    deadline: ChatDeadlineDep,
    account: AccountDep,
    runtime: RuntimeDep,
) -> Completion | Response:
    """Go on with one text or several."""
    prompts = [prompt for prompt in body.prompt for _ in range(body.n or 1)]
    check_answers(len(prompts), runtime.policy.chat_max_answers)
    asked = await charged(
        _conversation(body, prompt, number % (body.n or 1), account)
        for number, prompt in enumerate(prompts)
    )
    echoes = prompts if body.echo else [""] * len(prompts)
    completion_id, created_s = f"cmpl-{uuid.uuid4().hex}", int(time.time())
    if body.stream:
        options = body.stream_options
        dialects = [
            CompletionDialect(
                chat_id=completion_id,
                created_s=created_s,
                has_usage=bool(options and options.include_usage),
                index=index,
                echo=echo,
            )
            for index, echo in enumerate(echoes)
        ]
        return ManyStreams(chat, asked, deadline=deadline, dialects=dialects)
    answers = await answer_all(chat, asked, deadline=deadline)
    return Completion(
        id=completion_id,
        created=created_s,
        model=answers[0].model,
        choices=[
            _choice(answer, index, echo)
            for index, (answer, echo) in enumerate(zip(answers, echoes, strict=True))
        ],
        usage=openai_usage(*(answer.generation for answer in answers)),
    )
