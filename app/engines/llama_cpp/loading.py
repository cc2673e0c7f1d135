"""Loads a GGUF file into llama.cpp as a chat model, and checks that it works."""

from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from app.engines.base import EngineRequest, Task
from app.engines.llama_cpp.generator import LlamaCppGenerator
from app.engines.llama_cpp.gguf_header import read_header
from app.engines.llama_cpp.gguf_task import task_of
from app.engines.llama_cpp.native_tools import knows_tools
from app.engines.llama_cpp.server import OpenServer, find_file, open_server
from app.engines.llama_cpp.token_probabilities import one_token_labels
from app.engines.llama_cpp.tokens import LlamaTokenizer
from app.errors import EngineError

# A prompt is read in pieces of so many tokens: between two of them it can be cancelled, and others
# get a token. A CPU reads no faster in larger ones (64 to 512: within the noise).
PROMPT_PIECE_TOKENS = 64


def load(request: EngineRequest) -> LlamaCppGenerator:
    """Load a GGUF file; blocks for a second or two.

    Raises:
        EngineError: the source is no GGUF file, is for another task, or llama.cpp can't load it.

    """
    if request.task != Task.CHAT or request.chat is None:
        raise EngineError("this loads chat models only")
    file = find_file(request.folder)
    task = task_of(read_header(file))
    if task != Task.CHAT:
        raise EngineError(f'{file}: is no chat model; its entry\'s task is "{task}"')
    chat = request.chat
    opened = open_server(
        file,
        request,
        cores=chat.cores,
        http_threads=1,
        n_parallel=chat.slots,
        n_ctx=chat.context_tokens * chat.slots,
        n_batch=max(PROMPT_PIECE_TOKENS, chat.slots),
        # The cache of each slot stays; this one keeps prompts of others, up to 8 GiB of them.
        cache_ram_mib=0,
    )
    _check_logprobs(opened.server, file)
    return LlamaCppGenerator(
        opened.server,
        context_tokens=chat.context_tokens,
        device=opened.device,
        knows_tools=knows_tools(opened.server, context_tokens=chat.context_tokens),
        one_token_labels=_labels(opened),
    )


def _labels(opened: OpenServer) -> tuple[str, ...]:
    """Return which labels of decisions are one token of this model."""
    with closing(LlamaTokenizer(opened.server.listening_address, opened.key)) as tokenizer:
        return one_token_labels(tokenizer)


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
