"""Which JSON Schema keywords llama.cpp's grammars hold, and what each may stand beside.

llama.cpp makes a grammar of a schema and passes over what it doesn't know without a word. So these
are lists of what is known to hold; everything else is refused. tests/test_held_schemas.py asks the
packaged model for the contrary of each entry.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.engines.llama_cpp.held_alternatives import check_one_of, is_of
from app.engines.llama_cpp.held_references import check_definitions, check_reference, definitions_of
from app.engines.llama_cpp.held_values import (
    MAX_DEPTH,
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
from app.engines.llama_cpp.plain_schemas import ANNOTATIONS, NUMBER_FORMATS, ROOT, plain
from app.errors import OptionsRefusedError

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
    schema = ((plain(response_format) or {}).get("json_schema") or {}).get("schema")
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
                group, name = reference[2:].split("/")
                waiting.append(_schema(group, definitions[reference], (group, name)))
    for part, place in choices:
        check_one_of(part, definitions, place)
    check_definitions(definitions, used)


def check_stop(stop: Sequence[str], response_format: Mapping[str, Any] | None) -> None:
    """Let texts pass that end an answer, but for one that has to be whole.

    Raises:
        OptionsRefusedError: they stand beside a JSON schema.

    """
    if stop and (response_format or {}).get("type") == "json_schema":
        raise OptionsRefusedError(
            "Beside a JSON schema `stop` isn't possible: it would cut the answer within its JSON.",
            extensions={"field": "stop"},
        )


def _check(part: Part, place: Place) -> str | None:
    """Check one schema without those in it; return the keyword that decides alone, if one does."""
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
    if keyword == "format" and types and NUMBER_FORMATS.keys() >= set(types) - {"null"}:
        known = ", ".join(sorted(frozenset().union(*NUMBER_FORMATS.values())))
        return f"of numbers only {known} are known, and int32 with a lower and an upper bound"
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


def _inner(part: Part, place: Place) -> Iterator[tuple[Part, Place]]:
    """Yield the schemas in a schema that was checked."""
    for name, inner in part.get("properties", {}).items():
        yield _schema("properties", inner, (*place, "properties", name))
    for keyword in ("anyOf", "oneOf", "prefixItems"):
        for number, inner in enumerate(part.get(keyword, ())):
            yield _schema(keyword, inner, (*place, keyword, str(number)))
    if "items" in part:
        yield _schema("items", part["items"], (*place, "items"))
    if not isinstance(part.get("additionalProperties", False), bool):
        keyword = "additionalProperties"
        yield _schema(keyword, part[keyword], (*place, keyword))


def _schema(keyword: str, part: Any, place: Place) -> tuple[Part, Place]:  # noqa: ANN401  # JSON can be anything
    """Return a schema that a keyword has, with its place, unless it is none."""
    if not isinstance(part, dict):
        is_list = keyword == "items" and isinstance(part, list)
        instead = "; a list of them is `prefixItems`" if is_list else ""
        raise refuse(keyword, place, f"a schema has to be an object{instead}")
    return part, place
