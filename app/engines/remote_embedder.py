"""The remote engine's embedder: OpenAI's `/embeddings` of another server, many texts a request."""

import base64
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from app.engines.base import Encoded, EngineRequest, FloatArray, Task, unit
from app.engines.remote_server import RemoteServer
from app.engines.remote_settings import OPENAI, check_key, check_settings, read_source
from app.engines.remote_texts import RemoteText, places
from app.engines.rows import RowsRefusedError, lack_length
from app.engines.vector_rules import DOCUMENT, QUERY, VectorRules, edition_of
from app.errors import EngineError, ServiceError

# Of an answer: 16,384 numbers in words for each text are 400,000 bytes, and most servers answer a
# tenth of that.
FRAME_BYTES, VECTOR_BYTES = 2**20, 2**19
PROBE = "a"
# Of a text, as a rule of thumb for passages; the server's own limit isn't known.
WINDOW = 512


class RemoteEmbedder:
    """An embedder of another server; called in threads.

    Args:
        server: that is asked.
        name: of the model there.
        dimensions: of its vectors that are kept; 0: to be found out by `measure`.
        max_tokens: about how many fit, for documents, which are cut into passages.
        rules: of its texts and vectors.

    """

    kind = "remote"
    device = "remote"
    calls_models = True  # of another server: until when somebody waits for it bounds its calls

    def __init__(
        self,
        server: RemoteServer,
        *,
        name: str,
        dimensions: int,
        max_tokens: int,
        rules: VectorRules,
    ) -> None:
        self.dimensions = dimensions
        self.max_tokens = self.passage_tokens = max_tokens
        self.vector_rules = rules
        self._server = server
        self._name = name

    def encode(self, texts: Sequence[str], prompt: str = "") -> Sequence[RemoteText]:
        """Put a prompt before each text, and estimate its tokens; nothing is cut here."""
        return [RemoteText.of(prompt + text) for text in texts]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the places of about as many pieces as a text has tokens."""
        return places(text)

    def embed(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return vectors, (batch, dimensions) float32; of length 1 unless the entry says no.

        Raises:
            ServiceError: the server can't be reached, or refuses.
            RowsRefusedError: its vectors have fewer dimensions than there should be.

        """
        vectors = self._ask([cast("RemoteText", item).text for item in batch])
        width = vectors.shape[1]
        if width < self.dimensions:
            raise RowsRefusedError(
                f"the server's vectors have {width} dimensions where {self.dimensions} are right"
            )
        kept = vectors[:, : self.dimensions]
        if not self.vector_rules.is_unit or lack_length(kept).any():
            return kept  # which is refused, if it has no length
        return unit(kept)

    def measure(self) -> None:
        """Find out how many dimensions there are, by a call; raises as `embed`."""
        self.dimensions = self._ask([PROBE]).shape[1]

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def _ask(self, texts: list[str]) -> FloatArray:
        """Ask for the vectors of texts; raises as `RemoteServer.post`."""
        body = {"model": self._name, "input": texts, "encoding_format": "base64"}
        return self._server.post(
            "embeddings",
            body,
            max_bytes=FRAME_BYTES + len(texts) * VECTOR_BYTES,
            read=lambda answer: _vectors(answer, len(texts)),
        )


def _vectors(answer: Any, count: int) -> FloatArray:  # noqa: ANN401  # JSON of another server
    """Return an answer's vectors in the order of the texts.

    Raises:
        ValueError, LookupError, TypeError: it isn't OpenAI's.

    """
    rows = sorted(answer["data"], key=lambda row: int(row["index"]))
    if [row["index"] for row in rows] != list(range(count)):
        raise ValueError("the answer has other texts")
    vectors = np.stack([_vector(row["embedding"]) for row in rows])
    if not vectors.size:
        raise ValueError("a vector has no numbers")
    return vectors


def _vector(value: Any) -> FloatArray:  # noqa: ANN401  # JSON of another server
    """Return a vector in base64, or one of numbers by a server that has only those."""
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
    return np.asarray(value, dtype=np.float32).reshape(-1)


def load(request: EngineRequest) -> RemoteEmbedder:
    """Make the client of a remote embedder; its dimensions are asked for, if the entry has none.

    Raises:
        EngineError: the entry lacks something, or the server didn't answer that call.

    """
    assert request.task == Task.EMBEDDING  # noqa: S101  # of others `loader` knows
    if request.chat is None:
        raise EngineError("a remote model needs its entry's source and base_url")
    provider, model = read_source(request.chat.source)
    if provider != OPENAI:
        raise EngineError(
            f"source '{provider}:{model}': remote embedders are asked as OpenAI's: openai:{model},"
            " with the base_url of the server"
        )
    if request.embedding.pooling:
        raise EngineError("pooling has no meaning for a remote embedder: its server pools")
    check_settings(request.chat)
    check_key(request.chat)
    engine = RemoteEmbedder(
        RemoteServer(request.chat),
        name=model,
        dimensions=request.embedding.dimensions or 0,
        max_tokens=request.max_tokens or WINDOW,
        rules=_rules(request),
    )
    if not engine.dimensions:
        try:
            engine.measure()
        except ServiceError as failure:
            engine.close()
            raise EngineError(
                f"the server of {request.chat.source} can't be asked for its dimensions:"
                f" {failure.code}; with dimensions in the entry it isn't asked when it is loaded"
            ) from failure
    return engine


def _rules(request: EngineRequest) -> VectorRules:
    options = request.embedding
    rules = VectorRules(
        prompts={QUERY: "", DOCUMENT: ""} | dict(options.prompts),
        is_unit=options.normalize is not False,
    )
    assert request.chat is not None  # noqa: S101  # or it would not have loaded
    # There are no files whose version would tell vectors of another model apart.
    edition = edition_of(
        rules,
        width=options.dimensions or 0,
        steps=(request.chat.source, str(options.dimensions or "")),
        leaves_prompt_out=False,
        lowers_case=False,
    )
    return VectorRules(prompts=rules.prompts, is_unit=rules.is_unit, edition=edition)
