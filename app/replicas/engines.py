"""Engines for texts whose batches run in replicas: texts are tokenised here, as in a front end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final

from app.core.call_scope import current_scope
from app.engines.items import Prepared
from app.errors import EngineError, ServiceError
from app.replicas.asking import Replicas
from app.replicas.facts import ReplicaFacts
from app.sharing.engines import SharedClassifier, SharedEmbedder, SharedText, SharedTokenClassifier
from app.sharing.items import pack_items
from app.sharing.rows import unpack_rows

# Where no request waits, as in the calls by which the queue learns how quick the model is.
MAX_CALL_S: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class OnReplicas(SharedText):
    """What they share: a batch is a call of a replica, which puts it into batches of its own."""

    replicas: Replicas
    edition: str
    calls_models: ClassVar[bool] = True  # until when somebody waits for it bounds a call

    def run(self, batch: Sequence[Prepared]) -> list[Any]:
        """Return a row for each text, or its error.

        What fails for all of them is no text's fault, so that it isn't raised: a batch that raises
        is repeated in halves.
        """
        scope = current_scope()
        left_s = min(MAX_CALL_S, scope.remaining_s) if scope else MAX_CALL_S
        items = pack_items(batch)
        try:
            rows = unpack_rows(
                self.replicas.ask("run", self.edition, items, len(batch), left_s, timeout_s=left_s)
            )
        except ServiceError as failure:
            return [failure for _ in batch]
        return [
            row if isinstance(row, Exception) else self.row(row, item)
            for row, item in zip(rows, batch, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class ReplicaClassifier(OnReplicas, SharedClassifier):
    """A classifier, of texts or pairs."""


@dataclass(frozen=True, kw_only=True)
class ReplicaEmbedder(OnReplicas, SharedEmbedder):
    """An embedder."""


@dataclass(frozen=True, kw_only=True)
class ReplicaTokenClassifier(OnReplicas, SharedTokenClassifier):
    """A token classifier."""


KINDS: Mapping[type[SharedText], type[OnReplicas]] = {
    SharedClassifier: ReplicaClassifier,
    SharedEmbedder: ReplicaEmbedder,
    SharedTokenClassifier: ReplicaTokenClassifier,
}


def text_engine(facts: ReplicaFacts, replicas: Replicas) -> OnReplicas:
    """Return the engine of a model for texts."""
    if facts.texts is None:
        raise EngineError("the replicas have a model of another kind")
    shared = facts.texts.make_engine()
    own = {field.name: getattr(shared, field.name) for field in fields(shared)}
    return KINDS[type(shared)](replicas=replicas, edition=facts.edition, **own)
