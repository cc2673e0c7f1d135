"""OpenAI's dialect under `/v1`: chat completions, embeddings and models."""

import base64
import time
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from pydantic_core import to_json

from app.core.callers import Scope
from app.engines.base import FloatArray, GenerationOptions, Message, Task
from app.errors import (
    ModelNotFoundError,
    ModelNotReadyError,
    ModelUnavailableError,
    UnsupportedFieldError,
)
from app.features.openai.chat_schemas import (
    AssistantMessage,
    ChatCompletion,
    ChatCompletionRequest,
    Choice,
    ResponseFormat,
)
from app.features.openai.schemas import (
    EmbeddingsRequest,
    EmbeddingsResponse,
    OpenAiModel,
    OpenAiModels,
)
from app.http.deps import ChatDeadlineDep, RegistryDep
from app.http.dialects import OpenAiDialect, openai_usage
from app.http.guard import Guard, get_caller
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_CHAT, WITH_KEY, WITH_MODEL, openai_problems
from app.http.streams import StreamResponse
from app.models.registry import ModelEntry, ModelRegistry, ModelState
from app.services.streaming import Conversation
from app.tasks.chat.accounting import Account, AccountDep
from app.tasks.chat.routes import ChatDep
from app.tasks.embedding.routes import EmbedDep, plain, wanted_by

router = APIRouter(prefix="/v1", tags=["openai"], route_class=JsonRoute)
# What a client of OpenAI's can use; a classifier isn't.
TASKS = frozenset({Task.CHAT, Task.EMBEDDING})
# Any number is a seed; llama.cpp takes 32 bits, and the highest of them means "a random one".
SEEDS = 2**32 - 1
CHUNK = (
    'data: {"id":"chatcmpl-0b9a","object":"chat.completion.chunk","created":1795348800,'
    '"model":"smollm2","choices":[{"index":0,"delta":{"content":"The"},"finish_reason":null}]}\n\n'
    "data: [DONE]\n\n"
)
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream` as chunks, and `[DONE]` after the last.",
        # Without a schema: some readers hold it against each event, others against the whole.
        "content": {"text/event-stream": {"example": CHUNK}},
    }
}


async def _conversation(asked: ChatCompletionRequest, account: Account) -> Conversation:
    said = [
        Message(role="system" if m.role == "developer" else m.role, content=m.text)
        for m in asked.messages
    ]
    return Conversation(
        messages=said,
        model_name=asked.model,
        options=GenerationOptions(
            max_tokens=asked.max_completion_tokens or asked.max_tokens,
            temperature=asked.temperature,
            top_p=asked.top_p,
            seed=None if asked.seed is None else asked.seed % SEEDS,
            stop=tuple(asked.stop or ()),
            response_format=_format(asked.response_format),
        ),
        on_end=await account(said),
    )


def _format(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    """Return what the engine has to keep to; text is what it writes anyway."""
    if wanted is None or wanted.type == "text":
        return None
    return wanted.model_dump(by_alias=True, exclude_unset=True)


@router.post(
    "/chat/completions",
    summary="Answer a conversation",
    responses=openai_problems(*WITH_BODY, *WITH_KEY, *WITH_CHAT, UnsupportedFieldError) | STREAMED,
    dependencies=[Depends(Guard(Scope.CHAT))],
    response_model=ChatCompletion,
)
async def complete_chat(
    asked: ChatCompletionRequest, chat: ChatDep, deadline: ChatDeadlineDep, account: AccountDep
) -> ChatCompletion | Response:
    """Answer whole, or with `stream` token by token; leaving stops the generation."""
    conversation = await _conversation(asked, account)
    chat_id, created_s = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
    if asked.stream:
        options = asked.stream_options
        has_usage = bool(options and options.include_usage)
        dialect = OpenAiDialect(chat_id=chat_id, created_s=created_s, has_usage=has_usage)
        return StreamResponse(chat, conversation, deadline=deadline, dialect=dialect)
    made = await chat.answer(conversation, deadline=deadline)
    message = AssistantMessage(content=made.generation.text)
    return ChatCompletion(
        id=chat_id,
        created=created_s,
        model=made.model,
        choices=[Choice(message=message, finish_reason=made.generation.finish_reason)],
        usage=openai_usage(made.generation),
    )


@router.post(
    "/embeddings",
    summary="Embed texts",
    responses=openai_problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL, UnsupportedFieldError),
    dependencies=[Depends(Guard(Scope.EMBED))],
    response_model=EmbeddingsResponse,
)
async def create_embeddings(asked: EmbeddingsRequest, embed_texts: EmbedDep) -> Response:
    """Embed up to 2048 texts; a longer one than the model's window is cut."""
    made = await embed_texts(asked.input, model_name=asked.model, wanted=wanted_by(asked))
    written = _in_base64(made.vectors) if asked.encoding_format == "base64" else plain(made.vectors)
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(written)
        ],
        "model": made.model,
        "usage": {"prompt_tokens": made.tokens, "total_tokens": made.tokens},
    }
    # Up to 100,000 numbers: validating what was just made would take longer than making it.
    return Response(to_json(answer), media_type="application/json")


def _in_base64(vectors: FloatArray) -> list[str]:
    """Return each vector's little-endian float32 in base64."""
    return [base64.b64encode(vector.tobytes()).decode() for vector in vectors.astype("<f4")]


def _model(entry: ModelEntry) -> OpenAiModel:
    return OpenAiModel(id=entry.spec.name, created=int(entry.ready_at_s))


def _usable(registry: ModelRegistry) -> list[ModelEntry]:
    """Return the models that OpenAI's clients can use, once they are loaded."""
    return [entry for entry in registry.entries if entry.spec.task in TASKS]


@router.get(
    "/models",
    summary="List the models that are ready",
    responses=openai_problems(*WITH_KEY),
    dependencies=[Depends(get_caller)],
)
async def list_openai_models(registry: RegistryDep) -> OpenAiModels:
    """List the chat models and embedders that are ready."""
    ready = [entry for entry in _usable(registry) if entry.state is ModelState.READY]
    return OpenAiModels(data=[_model(entry) for entry in ready])


@router.get(
    "/models/{model}",
    summary="Show one model",
    responses=openai_problems(
        *WITH_KEY, ModelNotFoundError, ModelNotReadyError, ModelUnavailableError
    ),
    dependencies=[Depends(get_caller)],
)
async def show_openai_model(
    model: Annotated[str, Path(examples=["smollm2"])], registry: RegistryDep
) -> OpenAiModel:
    """Show one chat model or embedder; one that doesn't serve is 503."""
    found = next((entry for entry in _usable(registry) if entry.spec.name == model), None)
    if found is None:
        raise ModelNotFoundError
    with registry.lease(model, found.spec.task):  # which says why it can't be had
        return _model(found)
