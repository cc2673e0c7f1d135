"""The grammars of calls: which schema an answer has that calls tools, and what it may cost."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.engines.llama_cpp.held_tools import ANY_OBJECT, HeldTool, hold, named, parts_of
from app.engines.llama_cpp.held_values import MAX_LENGTH, Part
from app.engines.llama_cpp.json_schema import MAX_REPETITIONS, check_cost
from app.engines.llama_cpp.plain_schemas import ROOT, plain
from app.engines.tool_calls import ToolUse
from app.errors import OptionsRefusedError

MAX_CALLS = 8  # in one answer
# Of all tools together.
MAX_ALTERNATIVES = 4_096
MAX_CHARS = 65_536
# As sent, with what is left out: an agent's tools have a few thousand. To read 100,000 takes 0.1 to
# 0.3 s of a thread.
MAX_SENT_CHARS = 98_304
# Of texts and lists that bring no bound: a small model may go on for ever.
MIN_CHARS = 64
MAX_ITEMS = 16
CALLS_SHARE = 4  # a quarter of the context for all texts of a call, at a character a token


def call_format(
    use: ToolUse, *, context_tokens: int, answer: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    """Return the response format of an answer that calls tools.

    Args:
        use: which, and how many.
        context_tokens: of the model; texts without a bound get a share of it.
        answer: the response format of an answer that calls none; None: it has to call one.

    Raises:
        OptionsRefusedError: the grammar would be too large.

    """
    check_sent(use)
    tools = [hold(tool.get("parameters"), f"T{n}") for n, tool in enumerate(use.tools)]
    _bound(tools, context_tokens)
    for name, tool in zip(use.names, tools, strict=True):
        _check(name, tool.schema)
    wanted = _format(_calls(use, tools), answer)
    _check(None, wanted["json_schema"]["schema"])
    return wanted


def shown(use: ToolUse) -> list[dict[str, Any]]:
    """Return the tools for llama.cpp's own handling, which makes a grammar of their schemas.

    What the grammar wouldn't enforce is in a `$comment`, for the model to read.

    Raises:
        OptionsRefusedError: the grammar would be too large.

    """
    check_sent(use)
    tools = [hold(tool.get("parameters"), "D", comments=True) for tool in use.tools]
    for name, tool in zip(use.names, tools, strict=True):
        _check(name, tool.schema)
    _check(None, {"anyOf": [tool.schema for tool in tools]})
    return [
        {"type": "function", "function": {**function, "parameters": tool.schema}}
        for function, tool in zip(use.tools, tools, strict=True)
    ]


def check_sent(use: ToolUse) -> None:
    """Refuse tools whose schemas are too long to be read, before they are.

    Raises:
        OptionsRefusedError: they are, together.

    """
    chars = sum(len(json.dumps(tool.get("parameters"), ensure_ascii=False)) for tool in use.tools)
    if chars > MAX_SENT_CHARS:
        raise OptionsRefusedError(
            f"The schemas of the tools together are longer than {MAX_SENT_CHARS} characters.",
            extensions={"field": "tools"},
        )


def _check(name: str | None, schema: Part) -> None:
    """Refuse the schema of a tool, or of all, whose grammar would be too large.

    While a model writes the name, the grammar has an alternative for each tool; after it those of
    one tool are left. So the tools together may have more than each alone.
    """
    try:
        if name is None:
            check_cost(named(schema), max_alternatives=MAX_ALTERNATIVES, max_chars=MAX_CHARS)
        else:
            check_cost(named(schema))
    except OptionsRefusedError as refused:
        of = "The tools together are" if name is None else f"The tool '{name}' is"
        detail = f"{of} too much for this model's grammar. {refused.detail}"
        raise OptionsRefusedError(detail, extensions={"field": "tools"}) from None


def _calls(use: ToolUse, tools: list[HeldTool]) -> dict[str, Any]:
    """Return the schema of one call, or of a list of them."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": name}, "arguments": tool.arguments},
            "required": ["name", "arguments"],
        }
        for name, tool in zip(use.names, tools, strict=True)
    ]
    call = calls[0] if len(calls) == 1 else {"anyOf": calls}
    definitions = {name: part for tool in tools for name, part in tool.definitions.items()}
    groups = {"$defs": definitions} if definitions else {}
    if use.has_many:
        return {"type": "array", "items": call, "minItems": 1, "maxItems": MAX_CALLS, **groups}
    return {**call, **groups}


def _format(schema: dict[str, Any], answer: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the format of calls, or of either these or another answer."""
    if answer is None:
        return named(schema)
    own = ((plain(answer) or {}).get("json_schema") or {}).get("schema", ANY_OBJECT)
    groups = {name: own[name] for name in ("$defs", "definitions") if name in own}
    groups["$defs"] = {**groups.get("$defs", {}), **schema.pop("$defs", {})}
    rest = {keyword: value for keyword, value in own.items() if keyword not in ROOT}
    return named({"anyOf": [schema, rest], **groups})


def _bound(tools: Sequence[HeldTool], context_tokens: int) -> None:
    """Bound the texts and lists that have no bound; a call shall fit the context."""
    parts = [[*parts_of(tool.arguments), *parts_of([*tool.definitions.values()])] for tool in tools]
    texts = [sum(map(_is_text, own)) for own in parts]
    # Of all together, so that the grammar's rules stay few.
    share = MAX_REPETITIONS // 2 // max(1, sum(texts))
    for own, count in zip(parts, texts, strict=True):
        own_share = context_tokens // CALLS_SHARE // max(1, count)
        most = min(MAX_LENGTH, max(MIN_CHARS, min(share, own_share)))
        for part in own:
            if _is_text(part):
                part["maxLength"] = max(most, part.get("minLength", 0))
            if _is_list(part):
                part["maxItems"] = max(MAX_ITEMS, part.get("minItems", 0))


def _is_text(part: Part) -> bool:
    decided = part.keys() & {"maxLength", "format", "enum", "const"}
    return "string" in _types(part) and not decided


def _is_list(part: Part) -> bool:
    return "array" in _types(part) and not part.keys() & {"maxItems", "prefixItems"}


def _types(part: Part) -> list[str]:
    types = part.get("type", [])
    return types if isinstance(types, list) else [types]
