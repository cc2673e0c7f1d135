"""A body of `/chat` as the service takes it."""

from app.engines.chat_base import GenerationOptions, Message
from app.services.streaming import Conversation
from app.services.token_stream import OnEnd
from app.tasks.chat.schemas import ChatRequest


def messages_of(body: ChatRequest) -> list[Message]:
    """Return the messages, or the one question."""
    if body.messages is None:
        return [Message(role="user", content=body.query or "")]
    return [Message(role=m.role, content=m.content) for m in body.messages]


def conversation_of(body: ChatRequest, *, on_end: OnEnd | None = None) -> Conversation:
    """Return the conversation; `on_end` is called with its end."""
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Conversation(
        messages=messages_of(body),
        model_name=body.model_name,
        options=GenerationOptions(
            max_tokens=body.max_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            seed=body.seed,
            stop=stop,
        ),
        on_end=on_end,
    )
