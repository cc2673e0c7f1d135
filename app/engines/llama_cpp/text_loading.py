"""Loads a GGUF file as an embedder or a reranker, or says why it can't be one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from app.engines.base import (
    Activation,
    Embedder,
    EmbeddingOptions,
    EngineRequest,
    PairClassifier,
    Task,
)
from app.engines.llama_cpp.gguf_header import GgufHeader, read_header
from app.engines.llama_cpp.gguf_task import Pooling, has_head, pooling_of, reads_both_ways
from app.engines.llama_cpp.server import OpenServer, find_file, library, open_server
from app.engines.llama_cpp.texts import LlamaCppEmbedder, LlamaCppRanker
from app.engines.llama_cpp.tokens import CONNECTIONS, LlamaTokenizer
from app.engines.vector_rules import DOCUMENT, QUERY, VectorRules, edition_of
from app.errors import EngineError

# Room for texts is made when the model is loaded, for the longest: this many tokens, unless the
# entry allows more.
DEFAULT_WINDOW = 2048
# Texts that are computed together: 8 make a call, and two calls come at once.
SLOTS = 8
# Of a batch: its buffers, and the memory of a model that reads forwards.
BATCH_TOKENS = 2048
# llama.cpp counts a pair's tokens in one piece, which may be some more than in two.
MARGIN = 16
# By the names that sentence-transformers has for them, which an entry uses.
POOLINGS = {"mean": Pooling.MEAN, "cls": Pooling.CLS, "lasttoken": Pooling.LAST}
NAMES = {pooling: name for name, pooling in POOLINGS.items()}
# Whose numbers come out of a softmax over "yes" and "no".
GIVES_PROBABILITIES = ("qwen3", "qwen3vl")
TEMPLATE = "tokenizer.chat_template.rerank"
TYPES = "token_types.weight"
VOCABULARY, WORD_PIECE = "tokenizer.ggml.model", "bert"
PROBE = "a"
SAME = 0.01  # of numbers of a vector of length 1


def load(request: EngineRequest) -> Embedder | PairClassifier:
    """Load a GGUF file; blocks for a second or two.

    Raises:
        EngineError: the source is no GGUF file, its model isn't for this task or can't be used as
            its maker meant it, or llama.cpp can't load it.

    """
    file = find_file(request.folder)
    if request.adapter is not None:
        raise EngineError("the llama_cpp engine takes no adapter: merge it into the GGUF file")
    header = read_header(file)
    if request.task == Task.RANKING:
        return _load_ranker(file, header, request)
    return _load_embedder(file, header, request)


def _load_embedder(file: Path, header: GgufHeader, request: EngineRequest) -> LlamaCppEmbedder:
    pooling = _choose_pooling(file, header, request)
    window = _window(file, header, request)
    opened, tokenizer = _open(file, request, pooling=pooling, window=window)
    with _closed_on_failure(tokenizer):
        frame = _frame(tokenizer)
        if window <= len(frame[0]) + len(frame[1]):
            raise EngineError(f"{window} tokens leave no room for a text")
        ids = [*frame[0], *tokenizer.ids(PROBE), *frame[1]]
        width = _width(opened.server, ids, file)
    return LlamaCppEmbedder(
        opened.server,
        tokenizer,
        frame=frame,
        device=opened.device,
        max_tokens=window,
        dimensions=width,
        rules=_rules(request.embedding, pooling, width=width),
    )


def _width(server: Any, ids: list[int], file: Path) -> int:  # noqa: ANN401  # untyped library
    """Return the dimensions of the vectors.

    Raises:
        EngineError: there are none, or a text has another one beside a longer text.

    """
    longer = [*ids[:1], *ids, *ids, *ids]
    alone, both = (server.handle_embeddings({"input": texts}) for texts in ([ids], [ids, longer]))
    if "error" in alone or "error" in both:
        raise EngineError(f"{file}: llama.cpp makes no vectors with this model")
    first, again = (np.array(answer["data"][0]["embedding"]) for answer in (alone, both))
    if not np.allclose(first, again, rtol=0, atol=SAME, equal_nan=True):
        raise EngineError(f"{file}: llama.cpp gives a text another vector beside a longer one")
    return len(first)


def _rules(options: EmbeddingOptions, pooling: Pooling, *, width: int) -> VectorRules:
    """Return what holds for an embedder's texts and vectors: a file says nothing of it."""
    rules = VectorRules(
        prompts={QUERY: "", DOCUMENT: ""} | dict(options.prompts),
        is_unit=options.normalize is not False,
        dimensions=options.dimensions,
    )
    edition = edition_of(
        rules, width=width, steps=(NAMES[pooling],), leaves_prompt_out=False, lowers_case=False
    )
    return replace(rules, edition=edition)


@contextmanager
def _closed_on_failure(tokenizer: LlamaTokenizer) -> Iterator[None]:
    """Close a tokeniser's connections where no engine takes it over."""
    try:
        yield
    except BaseException:
        tokenizer.close()
        raise


def _choose_pooling(file: Path, header: GgufHeader, request: EngineRequest) -> Pooling:
    """Return the pooling that the entry names, else the file's.

    Raises:
        EngineError: neither names one that makes a vector.

    """
    own = pooling_of(header)
    if own is Pooling.RANK:
        raise EngineError(f'{file}: is a reranker; its entry\'s task is "{Task.RANKING}"')
    names = request.embedding.pooling
    if names and (len(names) > 1 or names[0] not in POOLINGS):
        raise EngineError(f"pooling: llama.cpp has one of {', '.join(POOLINGS)}")
    pooling = POOLINGS[names[0]] if names else own
    if not pooling:
        raise EngineError(
            f"{file}: says no pooling, as chat models do; if it is an embedder, let its entry say"
            ' pooling = "mean", "cls" or "lasttoken", as its maker does'
        )
    return pooling


def _load_ranker(file: Path, header: GgufHeader, request: EngineRequest) -> LlamaCppRanker:
    _check_ranker(file, header)
    window = _window(file, header, request)
    opened, tokenizer = _open(file, request, pooling=Pooling.RANK, window=window)
    with _closed_on_failure(tokenizer):
        probe = opened.server.handle_rerank({"query": PROBE, "documents": [PROBE]})
        if "error" in probe:
            raise EngineError(f"{file}: {window} tokens leave no room for a query and a text")
        frame = int(probe["usage"]["prompt_tokens"]) - 2 * len(tokenizer.ids(PROBE, special=False))
        if window <= frame + 1:
            raise EngineError(f"{file}: {window} tokens leave no room for a query and a text")
    gives_probabilities = header.architecture in GIVES_PROBABILITIES
    return LlamaCppRanker(
        opened.server,
        tokenizer,
        device=opened.device,
        max_tokens=window,
        frame_tokens=frame,
        activation=Activation.NONE if gives_probabilities else Activation.SIGMOID,
        label=request.labels[0] if request.labels else "LABEL_0",
    )


def _check_ranker(file: Path, header: GgufHeader) -> None:
    """Check that llama.cpp ranks with this model as its maker does.

    Raises:
        EngineError: it has no head for that, more than one number, or pairs that llama.cpp makes
            in another way.

    """
    if pooling_of(header) is not Pooling.RANK or not has_head(header):
        raise EngineError(
            f"{file}: is no reranker: a GGUF file of one says pooling_type 4 and has a last layer"
            " (cls.output.weight)"
        )
    labels = header.get("classifier.output_labels") or []
    count = labels if isinstance(labels, int) else len(labels)
    if count > 1 and header.architecture not in GIVES_PROBABILITIES:
        raise EngineError(f"{file}: has {count} labels; a reranker has one number")
    if header.metadata.get(VOCABULARY) == WORD_PIECE:
        raise EngineError(
            f"{file}: has a vocabulary of WordPiece, and llama.cpp makes pairs of those in another"
            " way than their makers: its scores would be others; serve the model's safetensors"
        )
    *_, types = header.shapes.get(TYPES, (1,))
    if types > 1:
        raise EngineError(
            f"{file}: tells the types of a pair's tokens apart, and llama.cpp doesn't: its scores"
            " would be others than its maker's; serve the model's safetensors"
        )


def _window(file: Path, header: GgufHeader, request: EngineRequest) -> int:
    """Return how many tokens are read of a text.

    Raises:
        EngineError: the file doesn't say what the model bears.

    """
    longest = header.get("context_length")
    if not isinstance(longest, int) or longest < 1:
        raise EngineError(f"{file}: doesn't say {header.architecture}.context_length")
    if not reads_both_ways(header):
        longest -= 1  # llama.cpp keeps a place for a token that it would generate
    return min(longest, request.max_tokens or DEFAULT_WINDOW)


def _open(
    file: Path, request: EngineRequest, *, pooling: Pooling, window: int
) -> tuple[OpenServer, LlamaTokenizer]:
    """Open the file; return its server and its tokeniser."""
    kinds = library().llama_pooling_type
    batch = max(window + MARGIN, min(BATCH_TOKENS, SLOTS * window))
    opened = open_server(
        file,
        request,
        cores=request.openvino.cores if request.openvino else request.threads,
        http_threads=CONNECTIONS + 1,
        embedding=True,
        pooling_type=getattr(kinds, f"LLAMA_POOLING_TYPE_{pooling.name}"),
        n_parallel=SLOTS,
        n_ctx=(window + MARGIN) * SLOTS,
        # A text is computed in one piece.
        n_batch=batch,
        n_ubatch=batch,
        cache_ram_mib=0,
        # With a memory for each, texts of several lengths are computed in several pieces, and
        # pooled by the last of them.
        kv_unified=True,
    )
    return opened, LlamaTokenizer(opened.server.listening_address, opened.key)


def _frame(tokenizer: LlamaTokenizer) -> tuple[list[int], list[int]]:
    """Return the tokens that the model wants before and behind each text.

    Raises:
        EngineError: they can't be told from the text's own.

    """
    whole, inner = tokenizer.ids(PROBE, whole=True), tokenizer.ids(PROBE)
    for start in range(len(whole) - len(inner) + 1):
        if whole[start : start + len(inner)] == inner:
            return whole[:start], whole[start + len(inner) :]
    raise EngineError("the tokeniser reads a text differently between its special tokens")
