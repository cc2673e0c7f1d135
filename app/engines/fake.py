"""Engines without weights: deterministic answers, and delays and failures on request."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.engines import fake_tokens
from app.engines.base import (
    CLASSIFYING,
    PAIRED,
    Activation,
    EmbeddingOptions,
    Encoded,
    Engine,
    EngineRequest,
    FloatArray,
    Task,
    TextOrPair,
)
from app.engines.token_windows import TokenRow
from app.engines.vector_rules import DOCUMENT, QUERY, VectorRules, edition_of
from app.errors import EngineError

DEFAULT_LABELS: Mapping[str, tuple[str, ...]] = {
    Task.CLASSIFICATION: ("NEGATIVE", "POSITIVE"),
    Task.RANKING: ("relevance",),
    Task.ZERO_SHOT: ("contradiction", "neutral", "entailment"),
}
ACTIVATIONS: Mapping[str, Activation] = {
    Task.CLASSIFICATION: Activation.SOFTMAX,
    Task.RANKING: Activation.SIGMOID,
    Task.ZERO_SHOT: Activation.LOGITS,
}
DIMENSIONS = 384  # as the default embedder
MAX_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeOptions:
    """The `fake` table of a catalogue entry."""

    delay_ms: float = 0  # per batch; for chat, per token
    load_delay_ms: float = 0
    fail_on: str | None = None  # a text that contains it raises
    fail_after: int | None = None  # chat: raises after so many tokens
    thinks: str = ""  # chat: what it thinks before each answer, word by word
    fail_load: bool = False
    oom_over: int | None = None  # a larger batch raises MemoryError


class FakeFailureError(RuntimeError):
    """The fake engine was told to fail here."""


class _FakeText:
    """What the fake engines of texts share: a token is one UTF-8 byte."""

    kind = "fake"
    device = "none"

    def __init__(self, request: EngineRequest, options: FakeOptions) -> None:
        self._options = options
        self.max_tokens = request.max_tokens or MAX_TOKENS
        self.encoder: fake_tokens.ByteEncoder = fake_tokens.ByteEncoder(self.max_tokens)

    def encode(self, texts: Sequence[str]) -> Sequence[Encoded]:
        """Tokenise into bytes."""
        return self.encoder.encode(texts)

    def close(self) -> None:
        """Nothing is held."""

    def _run(self, batch: Sequence[Encoded]) -> list[bytes]:
        """Spend the delay, fail if told to, and give the texts' bytes back."""
        if self._options.delay_ms:
            time.sleep(self._options.delay_ms / 1000)
        if self._options.oom_over is not None and len(batch) > self._options.oom_over:
            raise MemoryError
        data = [bytes(item.token_ids) for item in batch]
        poison = (self._options.fail_on or "").encode()
        if poison and any(poison in item for item in data):
            raise FakeFailureError
        return data


def _unit_floats(data: bytes, count: int) -> FloatArray:
    """Return `count` numbers in 0..1 that depend on the bytes alone."""
    digest = hashlib.shake_128(data).digest(count * 4)
    return np.frombuffer(digest, dtype=np.uint32).astype(np.float32) / np.float32(2**32)


class FakeClassifier(_FakeText):
    """Scores that depend on the text or the pair alone, and sum to 1 where there are several.

    For zero-shot-classification they are logits, up to 4.
    """

    takes_pairs = True

    def __init__(self, request: EngineRequest, options: FakeOptions) -> None:
        super().__init__(request, options)
        self.labels = request.labels or DEFAULT_LABELS[request.task]
        self.needs_pairs = request.task in PAIRED
        self.activation = ACTIVATIONS[request.task]
        self.entailment = len(self.labels) - 1 if request.task == Task.ZERO_SHOT else None

    def encode(self, texts: Sequence[TextOrPair]) -> list[Encoded]:
        """Tokenise texts and pairs into bytes."""
        return list(self.encoder.encode(texts))

    def classify(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return scores, (batch, labels) float32."""
        numbers = np.stack([_unit_floats(data, len(self.labels)) for data in self._run(batch)])
        if self.activation is Activation.SIGMOID:
            return numbers
        logits: FloatArray = numbers * 4
        if self.activation is Activation.LOGITS:
            return logits
        exp = np.exp(logits)
        probabilities: FloatArray = exp / exp.sum(axis=1, keepdims=True)
        return probabilities


class FakeTokenClassifier(_FakeText):
    """Finds words that begin with a capital letter."""

    def __init__(self, request: EngineRequest, options: FakeOptions) -> None:
        super().__init__(request, options)
        self.labels = request.labels or fake_tokens.LABELS
        self.encoder = fake_tokens.WordEncoder(self.max_tokens)

    def classify_tokens(self, batch: Sequence[Encoded]) -> list[TokenRow]:
        """Return what is said of the words of each text."""
        return [fake_tokens.row_of(data, self.labels) for data in self._run(batch)]


class FakeEmbedder(_FakeText):
    """Unit vectors that depend on the text alone."""

    dimensions = DIMENSIONS

    def __init__(self, request: EngineRequest, options: FakeOptions) -> None:
        super().__init__(request, options)
        self.passage_tokens = self.max_tokens
        self.vector_rules = _vector_rules(request.embedding)

    def encode(self, texts: Sequence[str], prompt: str = "") -> Sequence[Encoded]:
        """Tokenise texts with a prompt before each."""
        return self.encoder.encode(texts, prompt)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the place of each token."""
        return self.encoder.offsets(text)

    def embed(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return unit vectors, (batch, dimensions) float32."""
        raw = np.stack([_unit_floats(data, DIMENSIONS) - 0.5 for data in self._run(batch)])
        vectors: FloatArray = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        return vectors.astype(np.float32)


def _vector_rules(options: EmbeddingOptions) -> VectorRules:
    """Return what the catalogue says; there is no folder."""
    prompts = {QUERY: "", DOCUMENT: ""} | dict(options.prompts)
    rules = VectorRules(prompts=prompts, dimensions=options.dimensions)
    edition = edition_of(
        rules, width=DIMENSIONS, steps=("mean",), leaves_prompt_out=False, lowers_case=False
    )
    return replace(rules, edition=edition)


def load(request: EngineRequest) -> Engine:
    """Make the fake for the request's task.

    Raises:
        EngineError: an option isn't known, or `fail_load` is set.

    """
    try:
        options = FakeOptions(**request.options)
    except TypeError as unknown:
        names = ", ".join(FakeOptions.__slots__)
        raise EngineError(f"the table `fake` may hold {names}; {unknown}") from None
    time.sleep(options.load_delay_ms / 1000)
    if options.fail_load:
        raise EngineError("the fake engine was told not to load")
    if request.task in CLASSIFYING:
        return FakeClassifier(request, options)
    if request.embedding.pooling or request.embedding.normalize is not None:
        raise EngineError("the fake engine has no pooling: remove pooling and normalize")
    if request.task == Task.NER:
        return FakeTokenClassifier(request, options)
    if request.task == Task.EMBEDDING:
        return FakeEmbedder(request, options)
    assert request.chat is not None  # noqa: S101  # chat models have them
    from app.engines.chat import LocalChat
    from app.engines.fake_chat import FakeGenerator

    generator = FakeGenerator(options, context_tokens=request.chat.context_tokens)
    return LocalChat(generator, name=request.name)
