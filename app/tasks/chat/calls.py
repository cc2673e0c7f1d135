"""How a Python class calls a chat model: a question or a body of `/chat` in, its answer out."""

import asyncio
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from app.engines.python.models import Answers
from app.errors import ModelNotFoundError
from app.services.model_calls import CalledServices, ModelCall, wrong_item
from app.services.streaming import CHAT_MODELS, ChatService
from app.tasks.chat.conversations import conversation_of
from app.tasks.chat.schemas import ChatRequest


async def answer(call: ModelCall, services: CalledServices) -> Answers:
    """Return the text of each answer; as many are made at once as the model has slots."""
    spec = services.inference.spec(call.model, CHAT_MODELS)
    if spec is None:
        raise ModelNotFoundError
    chat = ChatService(services.registry, buffer_tokens=services.buffer_tokens)
    bodies = [_body(number, item, call.model) for number, item in enumerate(call.items)]
    places = asyncio.Semaphore(spec.slots)

    async def text_of(body: ChatRequest) -> str:
        async with places:
            answered = await chat.answer(conversation_of(body), deadline=call.deadline)
        return answered.generation.text

    try:
        async with asyncio.TaskGroup() as group:
            texts = [group.create_task(text_of(body)) for body in bodies]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return to_json([text.result() for text in texts])


def _body(number: int, item: Any, model: str) -> ChatRequest:  # noqa: ANN401  # parsed JSON
    fields = {"query": item} if isinstance(item, str) else item
    try:
        body = ChatRequest.model_validate(fields)
    except ValidationError as invalid:
        message = invalid.errors(include_input=False)[0]["msg"]
        raise wrong_item(number, message, kind="chat_request") from None
    return body.model_copy(update={"model_name": model})
