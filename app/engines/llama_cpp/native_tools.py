"""Tools as llama.cpp takes them, for models whose template knows tools."""

from collections.abc import Mapping
from typing import Any

from app.engines.chat_base import GenerationOptions, Message
from app.engines.llama_cpp.held_tools import ANY_OBJECT
from app.engines.llama_cpp.sampling import as_llama_cpp
from app.engines.llama_cpp.tool_schemas import shown
from app.engines.tool_calls import AUTO, TOOL_OPTIONS, tool_use

CONTEXT_EXCEEDED = "exceed_context_size_error"


def as_openai(message: Message) -> dict[str, Any]:
    """Return a message as OpenAI has it."""
    written: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        written["tool_calls"] = [call.as_openai() for call in message.tool_calls]
    if message.tool_call_id is not None:
        written["tool_call_id"] = message.tool_call_id
    return written


def fields_of(options: GenerationOptions) -> dict[str, Any]:
    """Return options by OpenAI's names, with the tools that may be called.

    The choice is always `auto`: llama.cpp knows no named one, and holds nobody to `required`.
    """
    fields = {k: v for k, v in options.as_openai().items() if k not in TOOL_OPTIONS}
    fields = as_llama_cpp(fields, options)
    use = tool_use(options)
    if use is None:
        return fields
    choice = {"tool_choice": AUTO, "parallel_tool_calls": use.has_many}
    return {**fields, "tools": shown(use), **choice}


def knows_tools(server: Any, *, context_tokens: int) -> bool:  # noqa: ANN401  # untyped
    """Say whether a model's template has tools: one that is longer than the context doesn't fit.

    Nothing is read by the model but, where there are none, a word.

    Args:
        server: xllamacpp's `Server`.
        context_tokens: of one generation.

    """
    function = {"name": "a", "description": "word " * context_tokens, "parameters": ANY_OBJECT}
    request = {
        "messages": [{"role": "user", "content": "a"}],
        "tools": [{"type": "function", "function": function}],
        "max_tokens": 1,
        "stream": True,
    }
    errors: list[Mapping[str, Any]] = []

    def take(chunk: Mapping[str, Any]) -> bool:
        if "error" in chunk:
            errors.append(chunk["error"])
        return False

    try:
        server.handle_chat_completions(request, take)
    except (TypeError, ValueError):  # it can't make a parser of the template
        return False
    return any(error.get("type") == CONTEXT_EXCEEDED for error in errors)
