"""The llama.cpp engine: GGUF chat models in this process, by way of xllamacpp.

xllamacpp runs llama.cpp's own server loop: continuous batching over slots, a prefix cache for each
slot, grammars for JSON schemas.
"""

import ctypes
import importlib.util
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.engines.base import (
    EngineRequest,
    Generation,
    GenerationOptions,
    Message,
    OnToken,
    Task,
    Usage,
)
from app.engines.llama_cpp.held_schemas import check_held, check_stop
from app.engines.llama_cpp.json_schema import check_cost
from app.engines.llama_cpp.plain_schemas import plain
from app.errors import (
    ContextLengthExceededError,
    EngineError,
    InferenceFailedError,
    OptionsRefusedError,
)

CONTEXT_EXCEEDED = "exceed_context_size_error"
BAD_REQUEST = "invalid_request_error"
OPENMP = "libgomp.so.1"
# How often a thread that waits for its mate looks before it sleeps. OpenMP's own 300,000 leave
# nothing to whoever else wants the cores; see docs/decisions/0006-chat.md.
SPIN_COUNT = "1000"
OpenLibrary = Callable[..., Any]
# A prompt is read in pieces of so many tokens: between two of them it can be given up, and others
# get a token. A CPU reads no faster in larger ones (64 to 512: within the noise).
PROMPT_PIECE_TOKENS = 64
QUIET = -1  # below every level that llama.cpp logs at


class LlamaCppGenerator:
    """A GGUF model behind llama.cpp's server loop.

    Args:
        server: xllamacpp's `Server`.
        context_tokens: of one generation, prompt and answer.

    """

    kind = "llama_cpp"
    device = "cpu"

    def __init__(self, server: Any, *, context_tokens: int) -> None:
        self._server = server
        self.context_tokens = context_tokens

    def check(self, options: GenerationOptions) -> None:
        """Let a schema pass that llama.cpp holds, and doesn't take too long over.

        Raises:
            OptionsRefusedError: it isn't held, or `stop` would cut the JSON.

        """
        check_stop(options.stop, options.response_format)
        check_cost(options.response_format)
        check_held(options.response_format)

    def generate(
        self, messages: Sequence[Message], options: GenerationOptions, *, on_token: OnToken
    ) -> Generation:
        """Generate until the end, a bound of `options`, or until `on_token` returns True."""
        self.check(options)
        answer = _Answer(on_token)
        body = {
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_progress": True,  # so that one who leaves is seen while the prompt is read
            **options.given(),
        }
        if options.response_format is not None:
            body["response_format"] = plain(options.response_format)
        try:
            self._server.handle_chat_completions(body, answer.take)
        except (TypeError, ValueError) as refused:  # the first for numbers beyond 64 bits
            raise OptionsRefusedError from refused
        return answer.finish()

    def close(self) -> None:
        """Stop the server loop and free the model."""
        self._server = None


class _Answer:
    """What the chunks of one generation say, put together."""

    def __init__(self, on_token: OnToken) -> None:
        self._on_token = on_token
        self._pieces: list[str] = []
        self._finish_reason: str | None = None
        self._usage: Mapping[str, Any] = {}
        self._error: Mapping[str, Any] | None = None
        self._is_stopped = False

    def take(self, chunk: Mapping[str, Any]) -> bool:
        """Take one of OpenAI's chunks, or an error; return whether to stop."""
        if "error" in chunk:
            self._error = chunk["error"]
            return True
        self._usage = chunk.get("usage") or self._usage
        piece = ""
        for choice in chunk.get("choices", ()):
            piece = choice["delta"].get("content") or ""
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
        if piece:
            self._pieces.append(piece)
        # Asked without a piece too: a client may leave while a model is thinking.
        self._is_stopped = self._is_stopped or self._on_token(piece)
        return self._is_stopped

    def finish(self) -> Generation:
        """Return the answer, or raise what went wrong."""
        if self._error is not None:
            raise _service_error(self._error)
        if self._finish_reason is None and not self._is_stopped:
            raise InferenceFailedError  # the loop ended without a word
        details = self._usage.get("prompt_tokens_details") or {}
        return Generation(
            text="".join(self._pieces),
            finish_reason=self._finish_reason or "cancelled",
            usage=Usage(
                prompt_tokens=self._usage.get("prompt_tokens", 0),
                # What was stopped brings no usage; a piece is a token, nearly always.
                completion_tokens=self._usage.get("completion_tokens", len(self._pieces)),
                cached_tokens=details.get("cached_tokens", 0),
            ),
        )


def _service_error(error: Mapping[str, Any]) -> Exception:
    """Give llama.cpp's error object its place in our tree; its message may quote the prompt."""
    if error.get("type") == CONTEXT_EXCEEDED:
        return ContextLengthExceededError(
            prompt_tokens=error["n_prompt_tokens"], context_tokens=error["n_ctx"]
        )
    return OptionsRefusedError() if error.get("type") == BAD_REQUEST else InferenceFailedError()


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
    # The wheel opens an HTTP port on loopback, whether one wants it or not. Nobody has its key.
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
    _check_odds(server, request.folder)
    return LlamaCppGenerator(server, context_tokens=chat.context_tokens)


def _check_odds(server: Any, file: Path) -> None:
    """See that a first token is likelier than others.

    llama.cpp samples from whatever comes: weights that are damaged behind a good header make NaN,
    zeros make all tokens alike, and either is answered as text.

    Raises:
        EngineError: it isn't.

    """
    chunks: list[Mapping[str, Any]] = []
    asked = {
        "messages": [{"role": "user", "content": "a"}],
        "max_tokens": 1,
        "stream": True,
        "logprobs": True,
        "top_logprobs": 2,
    }

    def take(chunk: Mapping[str, Any]) -> bool:
        chunks.append(chunk)
        return False

    with suppress(TypeError, ValueError):  # which the first call says again
        server.handle_chat_completions(asked, take)
    odds = [
        [likely["logprob"] for likely in token["top_logprobs"]]
        for chunk in chunks
        for choice in chunk.get("choices", ())
        for token in (choice.get("logprobs") or {}).get("content", ())
    ]
    if any(None in found or len(set(found)) == 1 for found in odds):
        raise EngineError(
            f"{file}: its weights are damaged, no token is likelier than another; compare the file"
            " with the one it was copied from"
        )
