"""Which JSON Schema keywords llama.cpp's grammars hold, and what each may stand beside.

llama.cpp makes a grammar of a schema and passes over what it doesn't know without a word. So these
are lists of what is known to hold; everything else is refused. tests/test_held_schemas.py asks the
packaged model for the contrary of each entry.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.engines.held_alternatives import check_one_of, is_of
from app.engines.held_references import (
    GROUPS,
    check_definitions,
    check_reference,
    definitions_of,
)
from app.engines.held_values import (
    Part,
    Place,
    check_array,
    check_integers,
    check_list,
    check_object,
    check_string,
    check_values,
    refuse,
)

MAX_DEPTH = 100  # of names in a place; a request's JSON has 200 levels at most
# They ask nothing of an answer.
ANNOTATIONS = frozenset(
    {
        *("$comment", "default", "deprecated", "description", "examples"),
        *("readOnly", "title", "writeOnly"),
    }
)
# Only where the whole schema begins: nested ones change what a `$ref` means.
ROOT = frozenset({"$id", "$schema", *GROUPS})
# One of these decides alone; llama.cpp passes over what stands beside it, but for these.
ALONE: Mapping[str, frozenset[str]] = {
    "$ref": frozenset(),
    "anyOf": frozenset({"discriminator"}),
    "oneOf": frozenset({"discriminator"}),
    "const": frozenset({"type"}),
    "enum": frozenset({"type"}),
}
# What each `type` may have.
OF_TYPES: Mapping[str, frozenset[str]] = {
    "array": frozenset({"items", "maxItems", "minItems", "prefixItems"}),
    "boolean": frozenset(),
    "integer": frozenset({"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"}),
    "null": frozenset(),
    "number": frozenset(),
    "object": frozenset({"additionalProperties", "properties", "required"}),
    "string": frozenset({"format", "maxLength", "minLength"}),
}
# What llama.cpp takes a schema without a `type` for.
SHAPES: Mapping[str, str] = {"properties": "object", "items": "array", "prefixItems": "array"}
DIALECTS = re.compile(
    r"https?://json-schema\.org/(draft/2020-12/schema|draft/2019-09/schema|draft-07/schema)#?"
)


def check_held(response_format: Mapping[str, Any] | None) -> None:
    """Let a format pass whose schema llama.cpp holds in full.

    Raises:
        OptionsRefusedError: it has a keyword, a value or a combination that isn't known to hold.

    """
    schema = ((response_format or {}).get("json_schema") or {}).get("schema")
    if schema is None:
        return
    definitions = definitions_of(schema)
    if "$schema" in schema and not DIALECTS.fullmatch(str(schema["$schema"])):
        raise refuse("$schema", (), "only drafts 07, 2019-09 and 2020-12 are known")
    used: list[str] = []
    choices: list[tuple[Part, Place]] = []
    waiting: list[tuple[Any, Place]] = [(schema, ())]
    while waiting:
        part, place = waiting.pop()
        form = _check(part, place)
        waiting += _inner(part, place)
        if form == "oneOf":
            choices.append((part, place))
        elif form == "$ref":
            reference = check_reference(part, definitions, place)
            if reference not in used:
                used.append(reference)
                waiting.append((definitions[reference], tuple(reference[2:].split("/"))))
    for part, place in choices:
        check_one_of(part, definitions, place)
    check_definitions(definitions, used)


def _check(part: Any, place: Place) -> str | None:  # noqa: ANN401  # JSON can be anything
    """Check one schema without those in it; return the keyword that decides alone, if one does."""
    if not isinstance(part, dict):
        raise refuse(json.dumps(part), place, "a schema has to be an object")
    if len(place) > MAX_DEPTH:
        raise refuse(place[-1], place, "it is nested too deeply")
    form = next((keyword for keyword in ALONE if keyword in part), None)
    types = _types(part, place)
    _check_keywords(part, form, types, place)
    if form in {"anyOf", "enum", "oneOf"}:
        check_list(part, form, place)
    if form in {"const", "enum"}:
        _check_values(part, form, types, place)
    if form is None:
        check_object(part, place)
        check_array(part, place)
        check_string(part, place)
        check_integers(part, types, place)
    return form


def _check_keywords(part: Part, form: str | None, types: list[str], place: Place) -> None:
    """Refuse the first keyword that isn't in the lists."""
    known = ANNOTATIONS if place else ANNOTATIONS | ROOT
    if form is not None:
        known |= {form} | ALONE[form]
    else:
        known |= {"type"}.union(*(OF_TYPES[name] for name in types))
    for keyword in part:
        if keyword not in known:
            raise refuse(keyword, place, _reason(keyword, form, types))
        # It bounds integers alone, and here they may be had as numbers too.
        if form is None and keyword in OF_TYPES["integer"] and "number" in types:
            raise refuse(keyword, place, "it holds for `integer`, not for `number`")


def _reason(keyword: str, form: str | None, types: list[str]) -> str:
    """Say why a keyword that isn't in the lists isn't."""
    places = [name for name, keywords in OF_TYPES.items() if keyword in keywords]
    if keyword in ROOT:
        return "it may only stand at the beginning"
    if form is not None and (places or keyword in ALONE or keyword == "type"):
        return f"not beside `{form}`"
    if places and not types:
        return f"it needs a `type`: {places[0]}"
    if places:
        return f"it holds for `{places[0]}`, not for `{', '.join(types)}`"
    return "it isn't among the keywords that hold"


def _types(part: Part, place: Place) -> list[str]:
    """Return the types of a schema; without a `type`, what it is taken for."""
    if "type" not in part:
        return next(([name] for keyword, name in SHAPES.items() if keyword in part), [])
    types = part["type"] if isinstance(part["type"], list) else [part["type"]]
    if not types or not all(isinstance(name, str) and name in OF_TYPES for name in types):
        raise refuse("type", place, "it has to name JSON's types")
    return types


def _check_values(part: Part, form: str, types: list[str], place: Place) -> None:
    """Refuse values that llama.cpp would write although `type` excludes them."""
    values = part[form] if form == "enum" else [part[form]]
    check_values(values, form, place)
    if "type" in part and not all(is_of(value, types) for value in values):
        raise refuse(form, place, "it has a value that isn't of its `type`")


def _inner(part: Part, place: Place) -> Iterator[tuple[Any, Place]]:
    """Yield the schemas in a schema that was checked."""
    for name, inner in part.get("properties", {}).items():
        yield inner, (*place, "properties", name)
    for keyword in ("anyOf", "oneOf", "prefixItems"):
        for number, inner in enumerate(part.get(keyword, ())):
            yield inner, (*place, keyword, str(number))
    if "items" in part:
        yield part["items"], (*place, "items")
    if not isinstance(part.get("additionalProperties", False), bool):
        yield part["additionalProperties"], (*place, "additionalProperties")
