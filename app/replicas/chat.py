"""Chat models in replicas: tokens as they come, and the end of a generation that nobody reads.

Imports LangChain, so it is imported when a chat model is loaded, and not before.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel

from app.engines.chat import Run, StreamedChatModel
from app.engines.chat_base import ChatFailure, Generation, GenerationOptions, Message
from app.engines.tool_calls import Piece
from app.errors import ModelCrashedError
from app.replicas.asking import Answer, Replicas
from app.replicas.facts import ChatFacts
from app.sharing.failures import read_failure


class ReplicaChat:
    """A chat model in replicas as a `ChatEngine`.

    Args:
        facts: of the model.
        replicas: that are asked.

    """

    def __init__(self, facts: ChatFacts, replicas: Replicas) -> None:
        self.kind = facts.kind
        self.device = facts.device
        self.chat_model: BaseChatModel = ReplicaChatModel(
            replicas=replicas, edition=facts.version, kind=facts.kind
        )
        self._replicas = replicas

    def check(self, options: GenerationOptions) -> None:
        """Refuse what no engine has; the replica refuses what its own hasn't, before any token."""
        options.refuse_foreign()

    def arguments(
        self,
        options: GenerationOptions,
        messages: Sequence[Message],  # noqa: ARG002  # LangChain's say all that is needed
    ) -> dict[str, Any]:
        """Return options by the names that the chat model knows them by."""
        return options.as_openai()

    def explain(self, failure: Exception) -> ChatFailure:
        """Translate Ray's errors; a generation whose replica died may be started in another."""
        error = self._replicas.explain(failure)
        self._replicas.has_died(failure)
        return ChatFailure(error=error, is_transient=isinstance(error, ModelCrashedError))

    def close(self) -> None:
        """Nothing is held: the model belongs to its replicas."""


class ReplicaChatModel(StreamedChatModel):
    """LangChain's interface of it."""

    replicas: Any
    edition: str
    kind: str

    @property
    def _llm_type(self) -> str:
        return self.kind

    def start(self, messages: Sequence[Message], options: GenerationOptions) -> Run:
        """Start a generation in one of the replicas."""
        return _ReplicaRun(self.replicas.stream("generate", self.edition, messages, options))


class _ReplicaRun:
    """One generation in a replica."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._generation: Generation | None = None

    @property
    def generation(self) -> Generation:
        """What came out, once there are no more tokens."""
        if self._generation is None:
            raise ModelCrashedError
        return self._generation

    async def tokens(self) -> AsyncGenerator[Piece]:
        """Yield tokens until the end; closing the generator stops the replica's too."""
        try:
            async for pieces in self._answer:
                for piece in pieces:
                    if isinstance(piece, Generation):
                        self._generation = piece
                    elif isinstance(piece, dict):
                        raise read_failure(piece)
                    else:
                        yield piece
        finally:
            if self._generation is None:
                self._answer.cancel()
