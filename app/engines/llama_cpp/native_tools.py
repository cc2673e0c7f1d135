"""Tools as llama.cpp takes them, for models whose template knows tools."""

from typing import Any

from app.engines.chat_base import GenerationOptions, Message
from app.engines.llama_cpp.json_schema import check_cost
from app.engines.llama_cpp.tool_schemas import named, shown, too_large
from app.engines.tool_calls import AUTO, REQUIRED, TOOL_OPTIONS, tool_use
from app.errors import OptionsRefusedError


def as_openai(message: Message) -> dict[str, Any]:
    """Return a message as OpenAI has it."""
    written: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        written["tool_calls"] = [call.as_openai() for call in message.tool_calls]
    if message.tool_call_id is not None:
        written["tool_call_id"] = message.tool_call_id
    return written


def fields_of(options: GenerationOptions) -> dict[str, Any]:
    """Return options by OpenAI's names; llama.cpp knows no named choice."""
    fields = {k: v for k, v in options.as_openai().items() if k not in TOOL_OPTIONS}
    use = tool_use(options)
    if use is None:
        return fields
    functions = [{**tool, "parameters": shown(tool.get("parameters"))} for tool in use.tools]
    return {
        **fields,
        "tools": [{"type": "function", "function": function} for function in functions],
        "tool_choice": REQUIRED if use.is_required else AUTO,
        "parallel_tool_calls": use.has_many,
    }


def check_native(options: GenerationOptions) -> None:
    """Check that llama.cpp's grammar of all tools is cheap.

    Raises:
        OptionsRefusedError: it isn't.

    """
    use = tool_use(options)
    if use is None:
        return
    schemas = [shown(tool.get("parameters")) for tool in use.tools]
    try:
        check_cost(named({"anyOf": schemas}))
    except OptionsRefusedError as refused:
        raise too_large(refused) from None
