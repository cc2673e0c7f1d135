"""What the service has to know of a model that runs in replicas."""

from dataclasses import dataclass
from typing import Self

from app.batching.generations import Generations
from app.batching.scheduler import BatchScheduler
from app.errors import EngineError
from app.models.entries import Served
from app.sharing.facts import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFacts:
    """Of a chat model."""

    version: str  # of its files
    kind: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaFacts:
    """Of a model: of one for texts all that front ends need, of a chat model little.

    Args:
        load_s: after which a replica served.
        texts: of a model for texts.
        chat: of a chat model.

    """

    load_s: float
    texts: Facts | None = None
    chat: ChatFacts | None = None

    @classmethod
    def of(cls, served: Served, *, name: str, load_s: float) -> Self:
        """Return the facts of a model that is loaded.

        Raises:
            EngineError: it is of a kind that can't run in replicas.

        """
        model, version = served.model, served.version
        if isinstance(model, Generations):
            engine = model.engine
            chat = ChatFacts(version=version, kind=engine.kind, device=engine.device)
            return cls(load_s=load_s, chat=chat)
        if not isinstance(model, BatchScheduler):
            raise EngineError("models of its kind can't run in replicas")
        facts = Facts.of(model.engine, name=name, index=0, version=version, load_s=load_s)
        return cls(load_s=load_s, texts=facts)

    @property
    def edition(self) -> str:
        """What is alike as long as answers mean the same.

        The service says with each call what it has been told, so that a replica with another
        model, after a deployment, is noticed.
        """
        if self.texts is not None:
            return self.texts.edition
        return self.chat.version if self.chat else ""
