"""Whether an embedder has room for a text behind a prompt, and the dimensions it is asked for."""

from pathlib import Path

from app.engines.base import Embedder, EngineRequest
from app.engines.folder.vector_settings import SETTINGS
from app.engines.vector_rules import DOCUMENT, QUERY
from app.errors import EngineError, UnsupportedFieldError

# A word or two; with less a passage of a document would be a piece of a word.
LEAST_ROOM = 4


def room_behind(engine: Embedder, prompt: str) -> int:
    """Return how many tokens of a text fit into the window behind a prompt; 0 or less: none."""
    return engine.passage_tokens - len(engine.offsets(prompt))


def longest_prompt(engine: Embedder) -> str:
    """Return the longest of a model's prompts that leave room for a text; "" where it has none."""
    prompts = engine.vector_rules.prompts.values()
    fitting = [prompt for prompt in prompts if room_behind(engine, prompt) >= LEAST_ROOM]
    return max(fitting, key=len, default="")


def check_embedder(engine: Embedder, request: EngineRequest) -> None:
    """Check that a loaded embedder can do what its files and its entry say, within its window.

    Prompts that only a request can name are left to `refuse_without_room`.

    Raises:
        EngineError: a prompt leaves no room for a text, or the entry asks for more dimensions than
            there are.

    """
    rules, dimensions = engine.vector_rules, request.embedding.dimensions
    for prompt in (rules.default_prompt, rules.prompts[QUERY], rules.prompts[DOCUMENT]):
        if prompt and room_behind(engine, prompt) < LEAST_ROOM:
            raise _no_room(engine, request, prompt)
    if dimensions is not None and dimensions > engine.dimensions:
        raise EngineError(
            f"{_in(request.folder)}the catalogue's dimensions are {dimensions}, and the model has"
            f" {engine.dimensions}; ask for no more"
        )


def refuse_without_room(engine: Embedder, name: str | None) -> None:
    """Check that a prompt that a request names leaves room for a text.

    Raises:
        UnsupportedFieldError: it doesn't, or there is none of that name.

    """
    prompt = engine.vector_rules.prompt(name)
    if name in {None, QUERY, DOCUMENT} or not prompt:
        return  # checked when the model was loaded
    if room_behind(engine, prompt) < LEAST_ROOM:
        raise UnsupportedFieldError(
            "prompt_name", detail="This prompt leaves no room for a text in the model's window."
        )


def _no_room(engine: Embedder, request: EngineRequest, prompt: str) -> EngineError:
    name = next(n for n, text in engine.vector_rules.prompts.items() if text == prompt)
    if name in request.embedding.prompts:
        source = f"{_in(request.folder)}the catalogue's prompts"
    elif request.folder is not None and (request.folder / SETTINGS).is_file():
        source = f"{request.folder / SETTINGS}: prompts"
    else:
        source = f"{_in(request.folder)}prompts"  # baked in
    return EngineError(
        f"{source}: {name!r} has {len(engine.offsets(prompt))} tokens, and the model takes"
        f" {engine.passage_tokens}; shorten it, here or by the catalogue's prompts, or raise"
        " limits.max_tokens"
    )


def _in(folder: Path | None) -> str:
    return f"{folder}: " if folder is not None else ""
