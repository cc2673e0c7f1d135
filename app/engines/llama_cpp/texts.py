"""Runs GGUF embedders and rerankers with llama.cpp: texts to tokens, calls of its server loop."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from app.engines.base import Activation, Encoded, FloatArray, Pair, TextOrPair
from app.engines.llama_cpp.pairs import cut_pair
from app.engines.llama_cpp.places import places
from app.engines.llama_cpp.tokens import LlamaTokenizer
from app.engines.scores import scores
from app.engines.vector_rules import VectorRules

AS_THEY_ARE = -1  # llama.cpp's number of a scaling: none
EUCLIDEAN = 2
PLACE, NO_PLACE = "{document}", "{ document}"


class _LlamaCppText:
    """What both share: the server loop, and the window."""

    kind = "llama_cpp"

    def __init__(
        self,
        server: Any,  # noqa: ANN401  # untyped library
        tokenizer: LlamaTokenizer,
        *,
        device: str,
        max_tokens: int,
    ) -> None:
        self.device = device
        self.max_tokens = max_tokens
        self._server = server
        self._tokenizer = tokenizer

    def close(self) -> None:
        """Stop the server loop and free the model."""
        self._tokenizer.close()
        self._server = None


class LlamaCppEmbedder(_LlamaCppText):
    """A GGUF embedder.

    Args:
        server: xllamacpp's `Server`, with a pooling of the model's.
        tokenizer: the model's.
        frame: the tokens that stand before and behind each text.
        device: where it computes.
        max_tokens: the window.
        dimensions: of its vectors.
        rules: of its texts and vectors.

    """

    def __init__(  # noqa: PLR0913  # each is known elsewhere
        self,
        server: Any,  # noqa: ANN401  # untyped library
        tokenizer: LlamaTokenizer,
        *,
        frame: tuple[Sequence[int], Sequence[int]],
        device: str,
        max_tokens: int,
        dimensions: int,
        rules: VectorRules,
    ) -> None:
        super().__init__(server, tokenizer, device=device, max_tokens=max_tokens)
        self._before, self._behind = list(frame[0]), list(frame[1])
        self.passage_tokens = max_tokens - len(self._before) - len(self._behind)
        self.dimensions = dimensions
        self.vector_rules = rules

    def encode(self, texts: Sequence[str], prompt: str = "") -> Sequence[Encoded]:
        """Tokenise texts with a prompt before each; too long a text is cut and says so."""
        return [self._encode(prompt + text) for text in texts]

    def _encode(self, text: str) -> Encoded:
        ids = self._tokenizer.ids(text)
        if not ids:
            return Encoded(token_ids=(), is_truncated=False)
        return Encoded(
            token_ids=[*self._before, *ids[: self.passage_tokens], *self._behind],
            is_truncated=len(ids) > self.passage_tokens,
        )

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return about the place of each token in a text of any length."""
        return places(text, [token.piece for token in self._tokenizer.tokens(text)])

    def embed(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return vectors, (batch, dimensions) float32; of length 1 unless the entry says no."""
        body = {
            "input": [list(item.token_ids) for item in batch],
            "encoding_format": "base64",
            "embd_normalize": EUCLIDEAN if self.vector_rules.is_unit else AS_THEY_ARE,
        }
        rows = _rows(self._server.handle_embeddings(body), "data", len(batch))
        return np.stack(
            [np.frombuffer(base64.b64decode(row["embedding"]), dtype=np.float32) for row in rows]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPair(Encoded):
    """A query and a text as llama.cpp takes them: cut, but as texts; tokens are only counted."""

    pair: Pair


class LlamaCppRanker(_LlamaCppText):
    """A GGUF cross-encoder, which is a classifier of pairs with one number.

    Args:
        server: xllamacpp's `Server`, with the pooling of rerankers.
        tokenizer: the model's.
        device: where it computes.
        max_tokens: the window.
        frame_tokens: of a pair, that are neither of its texts.
        activation: what makes a score of the model's number.
        label: what the number is called in the log of answers.

    """

    takes_pairs = True
    needs_pairs = True
    entailment: int | None = None

    def __init__(  # noqa: PLR0913  # each is known elsewhere
        self,
        server: Any,  # noqa: ANN401  # untyped library
        tokenizer: LlamaTokenizer,
        *,
        device: str,
        max_tokens: int,
        frame_tokens: int,
        activation: Activation,
        label: str,
    ) -> None:
        super().__init__(server, tokenizer, device=device, max_tokens=max_tokens)
        self.labels: tuple[str, ...] = (label,)
        self.activation = activation
        self._frame_tokens = frame_tokens

    def encode(self, texts: Sequence[TextOrPair]) -> list[Encoded]:
        """Tokenise pairs; of one that is longer than the window the longer text loses its end.

        A text alone, as in first calls, is paired with itself.
        """
        return [self._encode((text, text) if isinstance(text, str) else text) for text in texts]

    def _encode(self, pair: Pair) -> EncodedPair:
        query, text = pair
        # A template's places are filled one after the other: the text would be put into the query.
        # Before it is cut, since this may add tokens.
        query = query.replace(PLACE, NO_PLACE)
        room = self.max_tokens - self._frame_tokens
        cut = cut_pair((query, text), self._tokenizer, room=room)
        return EncodedPair(
            pair=cut.pair,
            token_ids=range(cut.tokens + self._frame_tokens),
            is_truncated=cut.is_truncated,
        )

    def classify(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return scores, (batch, 1) float32."""
        pairs = [cast("EncodedPair", item).pair for item in batch]
        by_query: dict[str, list[int]] = {}
        for index, (query, _) in enumerate(pairs):
            by_query.setdefault(query, []).append(index)
        numbers = np.empty((len(batch), 1), dtype=np.float32)
        for query, indices in by_query.items():
            body = {"query": query, "documents": [pairs[index][1] for index in indices]}
            rows = _rows(self._server.handle_rerank(body), "results", len(indices))
            numbers[indices, 0] = [_number(row["relevance_score"]) for row in rows]
        return scores(numbers, self.activation)


def _number(value: float | None) -> float:
    """Return a number of llama.cpp's JSON, in which NaN is null."""
    return float("nan") if value is None else value


def _rows(answer: Mapping[str, Any], field: str, count: int) -> list[Mapping[str, Any]]:
    """Return an answer's rows in the order of the texts.

    Raises:
        RuntimeError: it is an error, which may quote a text, or has another number of rows.

    """
    if "error" in answer or len(answer.get(field, ())) != count:
        error = answer.get("error") or {}
        raise RuntimeError(f"llama.cpp answered {error.get('type', 'something else')}")
    return sorted(answer[field], key=lambda row: int(row["index"]))
