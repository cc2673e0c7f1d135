"""What a front end has to know of a model that runs in the engine's process."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Self

from app.engines.base import (
    Activation,
    Classifier,
    Embedder,
    TokenClassifier,
    needs_pairs,
    takes_pairs,
)
from app.engines.items import BatchEngine
from app.engines.vector_rules import Similarity, VectorRules
from app.errors import EngineError
from app.sharing.encoders import Encoder, HasEncoder, read_encoder, write_encoder
from app.sharing.engines import (
    SharedClassifier,
    SharedEmbedder,
    SharedText,
    SharedTokenClassifier,
)
from app.sharing.frames import pack_json, unpack_json

COMPUTES_ON = ("kind", "device")
CLASSIFIER, EMBEDDER, TOKEN_CLASSIFIER = "classifier", "embedder", "token_classifier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A model that serves.

    Args:
        name: in the catalogue.
        index: by which requests name it.
        version: of its files.
        load_s: after which it served, since the start of its process.
        engine: what its engine says of itself, as JSON.
        encoder: its tokeniser, as JSON and bytes.

    """

    name: str
    index: int
    version: str
    load_s: float
    engine: Mapping[str, Any]
    encoder: Mapping[str, Any]
    blob: bytes = field(repr=False)

    @classmethod
    def of(cls, engine: BatchEngine, *, name: str, index: int, version: str, load_s: float) -> Self:
        """Return the facts of a model.

        Raises:
            EngineError: it is of a kind that front ends can't share.

        """
        written = write_encoder(engine.encoder) if isinstance(engine, HasEncoder) else None
        if written is None:
            raise EngineError("front ends can't share its engine")
        encoder, blob = written
        return cls(
            name=name,
            index=index,
            version=version,
            load_s=load_s,
            engine=_write(engine),
            encoder=encoder,
            blob=blob,
        )

    @property
    def edition(self) -> str:
        """What is alike as long as answers mean the same, on whatever they are computed.

        After a restart `auto` may choose another engine: where a GPU has been lost, for instance.
        """
        means = {name: value for name, value in self.engine.items() if name not in COMPUTES_ON}
        parts = (self.version, sorted(means.items()), sorted(self.encoder.items()))
        return sha256(repr(parts).encode() + self.blob).hexdigest()

    def pack(self) -> bytes:
        """Return the facts as bytes."""
        head = asdict(self)
        del head["blob"]
        return pack_json(head, self.blob)

    @classmethod
    def unpack(cls, payload: bytes | bytearray) -> Self:
        """Return what `pack` wrote."""
        head, blob = unpack_json(payload)
        return cls(**head, blob=blob)

    def make_engine(self) -> SharedText:
        """Return the engine as a front end has it: it tokenises."""
        return _read(self.engine, read_encoder(self.encoder, self.blob))


def _write(engine: BatchEngine) -> dict[str, Any]:
    common = {
        "kind": engine.kind,
        "device": engine.device,
        "tokenises_natively": bool(getattr(engine, "tokenises_natively", False)),
    }
    if isinstance(engine, TokenClassifier):
        own: dict[str, Any] = {"is": TOKEN_CLASSIFIER, "labels": list(engine.labels)}
    elif isinstance(engine, Embedder):
        own = {
            "is": EMBEDDER,
            "dimensions": engine.dimensions,
            "passage_tokens": engine.passage_tokens,
            "vector_rules": asdict(engine.vector_rules),
        }
    else:
        assert isinstance(engine, Classifier)  # noqa: S101  # no other has such an encoder
        own = {
            "is": CLASSIFIER,
            "labels": list(engine.labels),
            "activation": getattr(engine, "activation", Activation.SOFTMAX),
            "takes_pairs": takes_pairs(engine),
            "needs_pairs": needs_pairs(engine),
            "entailment": getattr(engine, "entailment", None),
        }
    return {**common, **own}


def _read(written: Mapping[str, Any], encoder: Encoder) -> SharedText:
    fields = dict(written)
    which = fields.pop("is")
    if which == EMBEDDER:
        rules = dict(fields.pop("vector_rules"))
        similarity = Similarity(rules.pop("similarity"))
        vector_rules = VectorRules(**rules, similarity=similarity)
        return SharedEmbedder(encoder=encoder, vector_rules=vector_rules, **fields)
    labels = tuple(fields.pop("labels"))
    if which == TOKEN_CLASSIFIER:
        return SharedTokenClassifier(encoder=encoder, labels=labels, **fields)
    activation = Activation(fields.pop("activation"))
    return SharedClassifier(encoder=encoder, labels=labels, activation=activation, **fields)
