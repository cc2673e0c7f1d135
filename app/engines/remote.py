"""The remote engine: chat models behind remote APIs, made by LangChain's init_chat_model.

Imports LangChain, so it is imported when a chat model is loaded, and not before.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import openai
from langchain.chat_models import init_chat_model
from langchain_core.language_models.chat_models import BaseChatModel

from app.core.tracing import outgoing
from app.engines.base import EngineRequest, Task
from app.engines.chat_base import ChatFailure, ChatOptions, GenerationOptions, Message
from app.engines.remote_arguments import arguments_of, refuse_dialect
from app.engines.remote_completions import CompletionsModel
from app.engines.remote_completions import arguments_of as completion_arguments
from app.engines.remote_errors import explain
from app.engines.remote_first_token import RemoteFirstToken
from app.engines.remote_openai import ThinkingChatOpenAI
from app.engines.remote_settings import (
    CONNECT_TIMEOUT_S,
    NO_KEY,
    OPENAI,
    OPENAI_URL,
    SENT_HEADERS,
    check_key,
    check_settings,
    read_source,
)
from app.errors import EngineError, OptionsRefusedError

CLOSE_TIMEOUT_S = 5.0
NO_TEXTS = "This model's provider answers conversations only: ask /v1/chat/completions."


class Connections:
    """The connections of one OpenAI model: no redirects, and no headers but those that are needed.

    Args:
        key: goes to the model's own address and nowhere else; None sends none.

    """

    def __init__(self, *, key: str | None) -> None:
        self._key = key
        self._loop: asyncio.AbstractEventLoop | None = None  # where the connections live
        self.client = openai.DefaultAsyncHttpxClient(
            event_hooks={"request": [self._prepare]},
            follow_redirects=False,  # a conversation goes where the catalogue says
        )

    async def read_key(self) -> str:
        """Return the key for OpenAI's client; `_prepare` decides what is sent."""
        return self._key or NO_KEY

    async def _prepare(self, request: Any) -> None:  # noqa: ANN401  # of the library that openai uses
        """Remove headers that the server doesn't need; called before each request is sent."""
        self._loop = asyncio.get_running_loop()
        for name in set(request.headers) - SENT_HEADERS:
            del request.headers[name]
        request.headers.update(outgoing())
        # A server that compresses collects tokens before sending them.
        request.headers["Accept-Encoding"] = "identity"
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"

    def close(self) -> None:
        """Close what is open; blocks, so it is called in a thread."""
        if self._loop is not None and self._loop.is_running():
            closing = asyncio.run_coroutine_threadsafe(self.client.aclose(), self._loop)
            closing.result(CLOSE_TIMEOUT_S)


class RemoteChat:
    """A chat model of another server as a `ChatEngine`.

    Args:
        chat_model: as LangChain made it; retries nothing itself.
        provider: LangChain's name of it, such as "openai".
        connections: closed with the engine; None where the provider's integration has its own.
        pass_fields: whether a server of OpenAI's dialect gets fields that aren't known here.
        first_tokens: reads how likely first tokens are; None where the provider can't be asked.

    """

    kind = "remote"
    device = "remote"

    def __init__(
        self,
        chat_model: BaseChatModel,
        *,
        provider: str,
        connections: Connections | None,
        pass_fields: bool = True,
        first_tokens: RemoteFirstToken | None = None,
    ) -> None:
        self.chat_model = chat_model
        # What goes on with texts; only OpenAI's dialect has it.
        self.text_model: BaseChatModel | None = None
        if isinstance(chat_model, ThinkingChatOpenAI):
            self.text_model = CompletionsModel(
                client=chat_model.root_async_client, model_name=chat_model.model_name
            )
        self.first_tokens = first_tokens
        self._is_openai = provider == OPENAI
        self._connections = connections
        self._passes_fields = self._is_openai and pass_fields

    def check(self, options: GenerationOptions) -> None:
        """Accept all that the remote server gets: it refuses what it can't do.

        Raises:
            OptionsRefusedError, UnsupportedFieldError: it doesn't get it.

        """
        if not self._passes_fields or options.is_raw:
            options.refuse_foreign()
        if options.is_raw and self.text_model is None:
            raise OptionsRefusedError(NO_TEXTS, extensions={"field": "prompt"})
        if not self._is_openai:
            refuse_dialect(options)

    def arguments(self, options: GenerationOptions, messages: Sequence[Message]) -> dict[str, Any]:
        """Return options, and messages as they were sent, as the integration takes them."""
        if options.is_raw:
            return completion_arguments(options)
        if not self._passes_fields:
            options = replace(options, sent={})
        return arguments_of(
            options, messages, chat_model=self.chat_model, is_openai=self._is_openai
        )

    def explain(self, failure: Exception) -> ChatFailure:
        """Translate an exception, without keys, hosts and the provider's message."""
        return explain(failure)

    def close(self) -> None:
        """Close the connections on the event loop; blocks, so call it in another thread."""
        if self.first_tokens is not None:
            self.first_tokens.close()
        if self._connections is not None:
            self._connections.close()


def load(request: EngineRequest) -> RemoteChat:
    """Make the client of a remote chat model; nothing is sent yet.

    Raises:
        EngineError: the entry doesn't say what LangChain needs, or the provider's integration
            isn't installed.

    """
    if request.task != Task.CHAT or request.chat is None:
        raise EngineError("this loads chat models only")
    chat = request.chat
    provider, model = read_source(chat.source)
    check_settings(chat)
    arguments: dict[str, Any] = {"max_retries": 0, "timeout": chat.timeout_s}
    connections = None
    if provider == OPENAI:
        connections = _connections(chat)
        arguments |= _openai_arguments(chat, connections)
    else:
        own = {"base_url": chat.base_url, "api_key": chat.api_key}
        arguments |= {name: value for name, value in own.items() if value is not None}
    chat_model = _init(model, provider, arguments)
    if "streaming" in type(chat_model).model_fields:
        chat_model.streaming = True  # type: ignore[attr-defined]  # token by token, with ainvoke too
    return RemoteChat(
        chat_model,
        provider=provider,
        connections=connections,
        pass_fields=chat.pass_fields,
        first_tokens=RemoteFirstToken(chat) if provider == OPENAI else None,
    )


def _connections(chat: ChatOptions) -> Connections:
    check_key(chat)
    return Connections(key=chat.api_key)


def _openai_arguments(chat: ChatOptions, connections: Connections) -> Mapping[str, Any]:
    """Return all that LangChain would otherwise take from the environment."""
    return {
        # OPENAI_BASE_URL, OPENAI_API_BASE and LANGSMITH_GATEWAY would lead elsewhere.
        "base_url": chat.base_url or OPENAI_URL,
        # Without one it would take OPENAI_API_KEY, and send it to any `base_url`. A function,
        # because then LangChain makes no second, synchronous client.
        "api_key": connections.read_key,
        "http_async_client": connections.client,
        "http_socket_options": (),  # or it warns that it has shadowed the proxy of our client
        "openai_proxy": "",  # OPENAI_PROXY; HTTPS_PROXY and NO_PROXY work as everywhere
        "output_version": "v0",  # LC_OUTPUT_VERSION
        "stream_usage": True,
        # One timeout is enough, and this one makes a task for each token.
        "stream_chunk_timeout": None,
        "timeout": openai.Timeout(chat.timeout_s, connect=CONNECT_TIMEOUT_S),
        "use_responses_api": False,
    }


def _init(model: str, provider: str, arguments: Mapping[str, Any]) -> BaseChatModel:
    """Make the model with LangChain; its message is kept where it can't hold the key."""
    try:
        chat_model: BaseChatModel = (
            ThinkingChatOpenAI(model=model, **arguments)
            if provider == OPENAI
            else init_chat_model(model, model_provider=provider, **arguments)
        )
    except ImportError as failure:
        reason = str(failure)
    except (ValueError, TypeError, openai.OpenAIError) as failure:
        reason = f"LangChain can't make this model: {type(failure).__name__}"
    else:
        return chat_model
    raise EngineError(f"source '{provider}:{model}': {reason}")
