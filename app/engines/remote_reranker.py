"""The remote engine's reranker: `/rerank` of another server, as Cohere and Jina have it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self, cast

import numpy as np

from app.engines.base import Activation, Encoded, EngineRequest, FloatArray, Pair, TextOrPair
from app.engines.chat_base import ChatOptions
from app.engines.remote_server import RemoteServer
from app.engines.remote_settings import OPENAI, check_settings, read_source
from app.engines.remote_texts import RemoteText
from app.errors import EngineError

COHERE: Final = "cohere"
# Where a provider is, if the entry says nothing. Servers that have the form of Jina's are `openai:`
# ones, as everything else that they serve: OpenAI itself ranks nothing.
URLS: Final[Mapping[str, str | None]] = {
    COHERE: "https://api.cohere.com/v2",
    "jina": "https://api.jina.ai/v1",
    OPENAI: None,
}
# Of an answer: a score with its index; some servers send the texts back, in JSON's longest form.
FRAME_BYTES, ROW_BYTES, BYTES_PER_CHAR = 2**20, 2**12, 24
WINDOW: Final = 512  # nothing is cut here; only the server knows its limit


@dataclass(frozen=True, slots=True, kw_only=True)
class RemotePair(Encoded):
    """A query and a text as they are sent; their tokens are only counted, about."""

    pair: Pair

    @classmethod
    def of(cls, pair: Pair) -> Self:
        """Return a pair with the number of its pieces."""
        count = sum(RemoteText.of(text).cost for text in pair)
        return cls(pair=pair, token_ids=range(count), is_truncated=False)


class RemoteReranker:
    """A reranker of another server, which is a classifier of pairs with one number.

    Args:
        server: that is asked.
        name: of the model there.
        extra: fields of the body that its provider has besides.
        label: what the number is called in the log of answers.

    """

    kind = "remote"
    device = "remote"
    calls_models = True  # of another server: until when somebody waits for it bounds its calls
    takes_pairs = needs_pairs = True
    entailment: int | None = None
    activation = Activation.NONE  # what its numbers are, only the server knows
    max_tokens = WINDOW

    def __init__(
        self, server: RemoteServer, *, name: str, extra: Mapping[str, Any], label: str
    ) -> None:
        self.labels: tuple[str, ...] = (label,)
        self._server = server
        self._name = name
        self._extra = extra

    def encode(self, texts: Sequence[TextOrPair]) -> list[Encoded]:
        """Estimate the tokens of pairs; a text alone is paired with itself."""
        pairs = [(text, text) if isinstance(text, str) else text for text in texts]
        return [RemotePair.of(pair) for pair in pairs]

    def classify(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return scores, (batch, 1) float32, by a call for each query; raises as `post`."""
        by_query: dict[str, list[int]] = {}
        for index, item in enumerate(batch):
            by_query.setdefault(cast("RemotePair", item).pair[0], []).append(index)
        scores = np.empty((len(batch), 1), dtype=np.float32)
        for query, indices in by_query.items():
            texts = [cast("RemotePair", batch[index]).pair[1] for index in indices]
            scores[indices, 0] = self._ask(query, texts)
        return scores

    def _ask(self, query: str, texts: list[str]) -> FloatArray:
        body = {"model": self._name, "query": query, "documents": texts, **self._extra}
        chars = sum(map(len, texts))
        return self._server.post(
            "rerank",
            {**body, "top_n": len(texts)},
            max_bytes=FRAME_BYTES + len(texts) * ROW_BYTES + chars * BYTES_PER_CHAR,
            read=lambda answer: _scores(answer, len(texts)),
        )

    def close(self) -> None:
        """Close the connections."""
        self._server.close()


def _scores(answer: Any, count: int) -> FloatArray:  # noqa: ANN401  # JSON of another server
    """Return an answer's scores in the order of the texts.

    Raises:
        ValueError, LookupError, TypeError: it isn't Cohere's or Jina's.

    """
    scores = {row["index"]: float(row["relevance_score"]) for row in answer["results"]}
    if len(answer["results"]) != count or set(scores) != set(range(count)):
        raise ValueError("the answer has other texts")
    return np.array([scores[index] for index in range(count)], dtype=np.float32)


def load(request: EngineRequest) -> RemoteReranker:
    """Make the client of a remote reranker; nothing is sent yet.

    Raises:
        EngineError: the entry lacks something.

    """
    if request.chat is None:
        raise EngineError("a remote model needs its entry's source and base_url")
    provider, model = read_source(request.chat.source)
    if provider not in URLS:
        known = ", ".join(f"{name}:{model}" for name in URLS)
        raise EngineError(f"source '{provider}:{model}': a remote reranker is one of {known}")
    check_settings(request.chat)
    chat = _addressed(request.chat, provider)
    return RemoteReranker(
        RemoteServer(chat),
        name=model,
        # Cohere sends no texts back; the others do unless they are told not to.
        extra={} if provider == COHERE else {"return_documents": False},
        label=request.labels[0] if request.labels else "relevance",
    )


def _addressed(chat: ChatOptions, provider: str) -> ChatOptions:
    """Return the options with the provider's address, where the entry has none."""
    if chat.base_url is not None:
        return chat
    url = URLS[provider]
    if url is None:
        raise EngineError("OpenAI ranks nothing: base_url has to name the server that does")
    if chat.api_key is None:
        raise EngineError(f"{provider} wants a key: name the variable that holds it in api_key_env")
    return replace(chat, base_url=url)
