"""JSON Schemas of tools' arguments, as far as llama.cpp's grammars enforce them.

Of a response's schema what wouldn't be enforced is refused. Of a tool's it is left out: agents send
tools that others wrote, and check arguments themselves.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.engines.llama_cpp.held_references import definitions_of
from app.engines.llama_cpp.held_schemas import check_held, check_part
from app.engines.llama_cpp.held_values import MAX_DEPTH, MAX_LENGTH, NotHeldError, Part
from app.engines.llama_cpp.json_schema import MAX_REPETITIONS, check_cost
from app.engines.llama_cpp.plain_schemas import ROOT, plain
from app.engines.tool_calls import ToolUse
from app.errors import OptionsRefusedError

MAX_CALLS = 8  # in one answer
# Of texts and lists that bring no bound: a small model may go on for ever.
MIN_CHARS = 64
MAX_ITEMS = 16
CALLS_SHARE = 4  # a quarter of the context for all texts of a call, at a character a token
ANY_OBJECT: Part = {"type": "object"}
SCHEMAS = ("properties", "anyOf", "prefixItems", "items", "additionalProperties")


@dataclass(frozen=True, slots=True)
class _Tool:
    """A tool's arguments, and the definitions that they refer to."""

    arguments: Part
    definitions: Mapping[str, Part]


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
    tools = [_held(tool.get("parameters"), f"T{n}") for n, tool in enumerate(use.tools)]
    schema = _calls(use, [_bounded(tool, context_tokens) for tool in tools])
    wanted = _format(schema, answer)
    try:
        check_cost(wanted)
        check_held(wanted)
    except NotHeldError:  # of the schemas together: references that lead nowhere
        wanted = _format(_calls(use, [_Tool(ANY_OBJECT, {}) for _ in tools]), answer)
    except OptionsRefusedError as refused:
        raise too_large(refused) from None
    return wanted


def shown(parameters: Any) -> Part:  # noqa: ANN401  # any JSON
    """Return a tool's schema for llama.cpp's own handling of tools, which makes a grammar of it.

    What the grammar wouldn't enforce is in a `$comment`, for the model to read.
    """
    tool = _held(parameters, "D", comments=True)
    groups = {"$defs": tool.definitions} if tool.definitions else {}
    wanted = {**tool.arguments, **groups}
    try:
        check_held(named(wanted))
    except OptionsRefusedError:
        return ANY_OBJECT
    return wanted


def too_large(refused: OptionsRefusedError) -> OptionsRefusedError:
    """Return the refusal of a response's schema as one of the tools together."""
    detail = f"The tools are too much for this model's grammar. {refused.detail}"
    return OptionsRefusedError(detail, extensions={"field": "tools"})


def named(schema: Part) -> Mapping[str, Any]:
    """Return a schema as a response format."""
    return {"type": "json_schema", "json_schema": {"name": "tools", "schema": schema}}


def _calls(use: ToolUse, tools: list[_Tool]) -> dict[str, Any]:
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


def _held(parameters: Any, prefix: str, *, comments: bool = False) -> _Tool:  # noqa: ANN401  # any JSON
    """Return what holds of a tool's schema; its definitions get names of their own."""
    wanted = plain(named(parameters)) if isinstance(parameters, dict) else None
    schema = wanted["json_schema"]["schema"] if wanted else {"type": "object", "properties": {}}
    definitions = definitions_of(schema)
    names = {pointer: f"{prefix}D{number}" for number, pointer in enumerate(definitions)}
    relax = _Relaxing(names, comments=comments)
    arguments = relax.part({k: v for k, v in schema.items() if k not in ROOT}, 0)
    # OpenAI's arguments are an object always.
    if not arguments.keys() & {"type", "properties", "$ref", "anyOf"}:
        arguments = ANY_OBJECT
    parts = {names[pointer]: relax.part(part, 0) for pointer, part in definitions.items()}
    return _Tool(arguments, parts)


class _Relaxing:
    """Leaves out of schemas what a grammar wouldn't enforce.

    Args:
        names: the new name of each definition, by the pointer to it.
        comments: whether to say what was left out.

    """

    def __init__(self, names: Mapping[str, str], *, comments: bool) -> None:
        self._names = names
        self._comments = comments

    def part(self, part: Any, depth: int) -> dict[str, Any]:  # noqa: ANN401  # any JSON
        """Return a schema and those in it without what doesn't hold."""
        if not isinstance(part, dict) or depth > MAX_DEPTH:
            return {}
        kept = {keyword: value for keyword, value in part.items() if keyword not in ROOT}
        if "oneOf" in kept and "anyOf" not in kept:
            kept["anyOf"] = kept.pop("oneOf")
        if "$ref" in kept:
            name = self._names.get(kept["$ref"]) if isinstance(kept["$ref"], str) else None
            return {"$ref": f"#/$defs/{name}"} if name else {}
        _describe_required(kept)
        if not isinstance(kept.get("items", {}), dict):  # of older drafts, or a boolean
            del kept["items"]
        for keyword in SCHEMAS:
            if keyword in kept:
                kept[keyword] = self._inner(keyword, kept[keyword], depth + 1)
        return self._without_refused(kept)

    def _inner(self, keyword: str, value: Any, depth: int) -> Any:  # noqa: ANN401  # any JSON
        if keyword == "properties" and isinstance(value, dict):
            return {name: self.part(part, depth) for name, part in value.items()}
        if keyword in {"anyOf", "prefixItems"} and isinstance(value, list):
            return [self.part(part, depth) for part in value]
        if keyword in {"items", "additionalProperties"} and not isinstance(value, bool):
            return self.part(value, depth)
        return value  # the check refuses what is no schema

    def _without_refused(self, part: dict[str, Any]) -> dict[str, Any]:
        """Take out one keyword after the other until the rest holds."""
        dropped: dict[str, Any] = {}
        while True:
            try:
                check_part(part)
            except NotHeldError as refused:
                if refused.keyword not in part:
                    return {}
                dropped[refused.keyword] = part.pop(refused.keyword)
            else:
                break
        if dropped and self._comments:
            part["$comment"] = json.dumps(dropped)
        return part


def _describe_required(part: dict[str, Any]) -> None:
    """Give names that are required a schema, where they have none."""
    properties, required = part.get("properties", {}), part.get("required")
    if isinstance(properties, dict) and isinstance(required, list):
        missing = [name for name in required if isinstance(name, str) and name not in properties]
        if missing:
            part["properties"] = {**properties, **{name: {} for name in missing}}


def _bounded(tool: _Tool, context_tokens: int) -> _Tool:
    """Bound the texts and lists that have no bound; a call shall fit the context."""
    roots = (tool.arguments, *tool.definitions.values())
    unbounded = sum(_is_text(part) for root in roots for part in _parts(root))
    share = min(context_tokens // CALLS_SHARE, MAX_REPETITIONS // 2) // max(1, unbounded)
    most = min(MAX_LENGTH, max(MIN_CHARS, share))
    for root in roots:
        for part in _parts(root):
            if _is_text(part):
                part["maxLength"] = max(most, part.get("minLength", 0))
            if _is_list(part):
                part["maxItems"] = max(MAX_ITEMS, part.get("minItems", 0))
    return tool


def _is_text(part: Part) -> bool:
    decided = part.keys() & {"maxLength", "format", "enum", "const"}
    return "string" in _types(part) and not decided


def _is_list(part: Part) -> bool:
    return "array" in _types(part) and not part.keys() & {"maxItems", "prefixItems"}


def _types(part: Part) -> list[str]:
    types = part.get("type", [])
    return types if isinstance(types, list) else [types]


def _parts(root: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401  # a relaxed schema
    """Yield a relaxed schema and those in it."""
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict):
            continue
        yield part
        waiting += part.get("properties", {}).values()
        for keyword in ("anyOf", "prefixItems"):
            waiting += part.get(keyword, ())
        waiting += [part.get("items"), part.get("additionalProperties")]
