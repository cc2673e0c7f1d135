"""JSON Schemas of tools' arguments, as far as llama.cpp's grammars enforce them.

Of a response's schema what wouldn't be enforced is refused. Of a tool's it is left out: agents send
tools that others wrote, and check arguments themselves.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.engines.llama_cpp.held_references import definitions_of
from app.engines.llama_cpp.held_schemas import KEYWORDS, check_held, check_part
from app.engines.llama_cpp.held_values import MAX_DEPTH, NotHeldError, Part
from app.engines.llama_cpp.plain_schemas import ROOT, plain

ANY_OBJECT: Part = {"type": "object"}
NOTHING: Part = {"type": "object", "properties": {}}
SCHEMAS = ("properties", "anyOf", "prefixItems", "items", "additionalProperties")


@dataclass(frozen=True, slots=True)
class HeldTool:
    """A tool's arguments, and the definitions that they refer to."""

    arguments: Part
    definitions: Mapping[str, Part]

    @property
    def schema(self) -> Part:
        """Both in one."""
        return {**self.arguments, **({"$defs": self.definitions} if self.definitions else {})}


def named(schema: Part) -> Mapping[str, Any]:
    """Return a schema as a response format."""
    return {"type": "json_schema", "json_schema": {"name": "tools", "schema": schema}}


def hold(parameters: Any, prefix: str, *, comments: bool = False) -> HeldTool:  # noqa: ANN401  # any JSON
    """Return what holds of a tool's schema; its definitions get names of their own."""
    wanted = plain(named(parameters)) if isinstance(parameters, dict) else None
    schema: Part = wanted["json_schema"]["schema"] if wanted else NOTHING
    definitions = definitions_of(schema)
    names = {pointer: f"{prefix}D{number}" for number, pointer in enumerate(definitions)}
    relax = _Relaxing(names, comments=comments)
    arguments: Part = relax.part({k: v for k, v in schema.items() if k not in ROOT}, 0)
    # OpenAI's arguments are an object always.
    is_other = arguments.get("type", "object") != "object"
    if is_other or not arguments.keys() & {"type", "properties", "$ref", "anyOf"}:
        arguments = ANY_OBJECT
    parts = {names[pointer]: relax.part(part, 0) for pointer, part in definitions.items()}
    tool = HeldTool(arguments, parts)
    try:
        check_held(named(tool.schema))
    except NotHeldError:  # references that lead nowhere
        return HeldTool(ANY_OBJECT, {})
    return tool


def parts_of(root: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401  # a relaxed schema
    """Yield a relaxed schema, or those of a list, and those in them."""
    waiting = root if isinstance(root, list) else [root]
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict):
            continue
        yield part
        waiting += part.get("properties", {}).values()
        for keyword in ("anyOf", "prefixItems"):
            waiting += part.get(keyword, ())
        waiting += [part.get("items"), part.get("additionalProperties")]


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
        for keyword in ("type", "required"):  # what is there twice would be checked twice
            if _is_names(kept.get(keyword)):
                kept[keyword] = list(dict.fromkeys(kept[keyword]))
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
        """Take out what is unknown, then one keyword after the other until the rest holds."""
        dropped = {keyword: value for keyword, value in part.items() if keyword not in KEYWORDS}
        part = {keyword: value for keyword, value in part.items() if keyword in KEYWORDS}
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


def _is_names(value: Any) -> bool:  # noqa: ANN401  # any JSON
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _describe_required(part: dict[str, Any]) -> None:
    """Give names that are required a schema, where they have none."""
    properties, required = part.get("properties", {}), part.get("required")
    if isinstance(properties, dict) and isinstance(required, list):
        missing = [name for name in required if isinstance(name, str) and name not in properties]
        if missing:
            part["properties"] = {**properties, **{name: {} for name in missing}}
