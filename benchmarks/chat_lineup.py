"""Who takes part in the chat table: how each is started and asked, on the same GGUF file."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.chat_prompts import messages
from benchmarks.chat_streams import ReadLine, read_ndjson, read_openai
from benchmarks.lineup import Peer, Sizes
from benchmarks.process import CORES
from benchmarks.venvs import HERE

WORK = HERE / ".work" / "chat"
WEIGHTS = WORK / "model"  # the GGUF file as a folder of safetensors, for transformers
SLOTS = 16  # as many as the most streams
CONTEXT_TOKENS = 512  # of each: a prompt and an answer of this table fit thrice
CACHE_BLOCK = 32  # tokens in a block of transformers' paged cache
OURS = "ndjson"  # whom the others are compared with
PEER_SIZES = Sizes(workers=1, threads=CORES)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatContestant(Peer):
    """One row of the chat table."""

    engine: str
    body: Callable[[str, int], bytes]  # prompt, max_tokens
    read_line: ReadLine
    is_ours: bool = False
    needs_weights: bool = False


def _options(text: str, max_tokens: int) -> dict[str, Any]:
    return {"messages": messages(text), "max_tokens": max_tokens, "temperature": 0}


def _ndjson_body(text: str, max_tokens: int) -> bytes:
    return json.dumps(_options(text, max_tokens)).encode()


def _openai_body(model: str) -> Callable[[str, int], bytes]:
    def body(text: str, max_tokens: int) -> bytes:
        return json.dumps({**_options(text, max_tokens), "model": model, "stream": True}).encode()

    return body


def _ours(name: str, title: str, path: str, body: Callable[[str, int], bytes]) -> ChatContestant:
    """Return this service with nothing but the chat model."""
    return ChatContestant(
        name=name,
        title=title,
        engine="llama.cpp",
        command=("{bin}/app", "serve", "--host", "127.0.0.1", "--port", "{port}"),
        sizes=PEER_SIZES,
        package="ml-api",
        env={
            "MODELS_FILE": "{work}/models.toml",
            "DATA_DIR": "{work}/data",
            "LOG_LEVEL": "warning",
            "LIMITS": "off",
            "JOBS": "off",
        },
        path=path,
        body=body,
        read_line=read_ndjson if name == OURS else read_openai,
        is_ours=True,
    )


def _transformers_serve(name: str, title: str, *flags: str) -> ChatContestant:
    return ChatContestant(
        name=name,
        title=title,
        engine="torch",
        venv="transformers",
        package="transformers",
        command=(
            *("{bin}/transformers", "serve", "{model}", "--host", "127.0.0.1", "--port", "{port}"),
            *("--device", "cpu", "--log-level", "warning", *flags),
        ),
        sizes=PEER_SIZES,
        path="/v1/chat/completions",
        body=_openai_body(str(WEIGHTS)),
        read_line=read_openai,
        needs_weights=True,
    )


CHAT_LINEUP = (
    _ours(OURS, "this service, `/chat/stream`", "/chat/stream", _ndjson_body),
    _ours("openai", "this service, `/v1`", "/v1/chat/completions", _openai_body("smollm2")),
    ChatContestant(
        name="xllamacpp",
        title="xllamacpp's HTTP server",
        engine="llama.cpp",
        package="xllamacpp",
        command=("{bin}/python", "xllamacpp_server.py"),
        sizes=PEER_SIZES,
        env={
            "BENCH_GGUF": "{work}/model.gguf",
            "BENCH_SLOTS": str(SLOTS),
            "BENCH_CONTEXT": str(CONTEXT_TOKENS),
        },
        path="/v1/chat/completions",
        body=_openai_body("smollm2"),
        read_line=read_openai,
    ),
    ChatContestant(
        name="llama-cpp-python",
        title="llama-cpp-python's server (from a wheel)",
        engine="llama.cpp",
        venv="llama-cpp-python",
        package="llama-cpp-python",
        command=(
            *("{bin}/python", "-m", "llama_cpp.server", "--model", "{work}/model.gguf"),
            *("--host", "127.0.0.1", "--port", "{port}", "--n_ctx", str(CONTEXT_TOKENS)),
            *("--n_threads", str(CORES), "--n_threads_batch", str(CORES), "--verbose", "False"),
            # By default a new request ends the one before it.
            *("--interrupt_requests", "False"),
        ),
        sizes=PEER_SIZES,
        path="/v1/chat/completions",
        body=_openai_body("smollm2"),
        read_line=read_openai,
    ),
    _transformers_serve("transformers", "`transformers serve`"),
    _transformers_serve(
        "transformers-cb",
        "`transformers serve`, continuous batching",
        "--continuous-batching",
        # As much cache as the others; by default it takes most of the memory that is free.
        *("--cb-block-size", str(CACHE_BLOCK)),
        *("--cb-num-blocks", str(SLOTS * CONTEXT_TOKENS // CACHE_BLOCK)),
    ),
    ChatContestant(
        name="article",
        title="FastAPI, a thread and TextIteratorStreamer (the article)",
        engine="torch",
        venv="transformers",
        command=(
            *("{bin}/uvicorn", "article_chat:app", "--host", "127.0.0.1", "--port", "{port}"),
            *("--no-access-log", "--log-level", "warning"),
        ),
        sizes=PEER_SIZES,
        path="/chat/stream",
        body=_ndjson_body,
        read_line=read_ndjson,
        needs_weights=True,
    ),
)
