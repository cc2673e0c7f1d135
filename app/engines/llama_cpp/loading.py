"""Loads a GGUF file into llama.cpp, and checks that it works."""

import ctypes
import importlib.util
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.engines.base import EngineRequest, Task
from app.engines.llama_cpp.generator import LlamaCppGenerator
from app.engines.llama_cpp.native_tools import knows_tools
from app.errors import EngineError

OPENMP = "libgomp.so.1"
# How often a waiting thread polls before it sleeps. OpenMP's own 300,000 leave no processor time
# to other threads; see docs/decisions/0006-chat.md.
SPIN_COUNT = "1000"
OpenLibrary = Callable[..., Any]
# A prompt is read in pieces of so many tokens: between two of them it can be cancelled, and others
# get a token. A CPU reads no faster in larger ones (64 to 512: within the noise).
PROMPT_PIECE_TOKENS = 64
QUIET = -1  # below every level that llama.cpp logs at


def load_openmp(open_library: OpenLibrary = ctypes.CDLL) -> None:
    """Load the OpenMP library that xllamacpp needs and doesn't bring, and keep it from spinning.

    Slim images lack it; torch's wheel has a copy under the same name. Without either, importing
    xllamacpp says what is missing.
    """
    # Read once, when the library is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    torch = importlib.util.find_spec("torch")
    folders = torch.submodule_search_locations if torch else None
    copies = [Path(folder) / "lib" / OPENMP for folder in folders or ()]
    for name in (OPENMP, *map(str, copies)):
        with suppress(OSError):
            open_library(name, mode=ctypes.RTLD_GLOBAL)
            return


def _import() -> Any:
    """Import xllamacpp.

    Raises:
        EngineError: the system lacks a library that it needs.

    """
    load_openmp()
    try:
        import xllamacpp
    except ImportError as failure:
        raise EngineError(f"xllamacpp can't be imported: {failure}") from failure
    return xllamacpp


def load(request: EngineRequest) -> LlamaCppGenerator:
    """Load a GGUF file; blocks for a second or two.

    Raises:
        EngineError: the source is no GGUF file, or llama.cpp can't load it.

    """
    if request.task != Task.CHAT or request.chat is None:
        raise EngineError("the llama_cpp engine has chat models only")
    if request.folder is None or request.folder.suffix != ".gguf":
        raise EngineError("the llama_cpp engine needs a source that is a .gguf file")
    xllamacpp = _import()

    chat = request.chat
    params = xllamacpp.CommonParams()
    params.model.path = str(request.folder)
    params.n_parallel = chat.slots
    params.n_ctx = chat.context_tokens * chat.slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = chat.cores
    params.verbosity = QUIET
    params.n_batch = max(PROMPT_PIECE_TOKENS, chat.slots)
    # The cache of each slot stays; this one keeps prompts of others, up to 8 GiB of them.
    params.cache_ram_mib = 0
    # The wheel always opens an HTTP port on loopback: a random key keeps others out.
    params.api_keys = [secrets.token_hex(32)]
    params.ui = False
    params.endpoint_slots = False
    params.n_threads_http = 1
    try:
        server = xllamacpp.Server(params)
    except (RuntimeError, ValueError, MemoryError) as failure:
        raise EngineError(
            f"{request.folder}: llama.cpp can't load this model: it is cut off, damaged, or of a"
            " kind that it doesn't know; compare the file with the one it was copied from"
        ) from failure
    _check_logprobs(server, request.folder)
    return LlamaCppGenerator(
        server,
        context_tokens=chat.context_tokens,
        knows_tools=knows_tools(server, context_tokens=chat.context_tokens),
    )


def _check_logprobs(server: Any, file: Path) -> None:
    """Check that a first token is likelier than others.

    llama.cpp samples from any numbers: weights that are damaged behind a good header make NaN,
    zeros make all tokens alike, and both are answered as text.

    Raises:
        EngineError: it isn't.

    """
    chunks: list[Mapping[str, Any]] = []
    request = {
        "messages": [{"role": "user", "content": "a"}],
        "max_tokens": 1,
        "stream": True,
        "logprobs": True,
        "top_logprobs": 2,
    }

    def take(chunk: Mapping[str, Any]) -> bool:
        chunks.append(chunk)
        return False

    with suppress(TypeError, ValueError):  # the first call raises it again
        server.handle_chat_completions(request, take)
    logprobs = [
        [likely["logprob"] for likely in token["top_logprobs"]]
        for chunk in chunks
        for choice in chunk.get("choices", ())
        for token in (choice.get("logprobs") or {}).get("content", ())
    ]
    if any(None in values or len(set(values)) == 1 for values in logprobs):
        raise EngineError(
            f"{file}: its weights are damaged, no token is likelier than another; compare the file"
            " with the one it was copied from"
        )
