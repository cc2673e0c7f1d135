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
    SchemaPath,
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
# All that may hold somewhere.
KEYWORDS = ANNOTATIONS.union({"type"}, ALONE, *ALONE.values(), *OF_TYPES.values())
# What llama.cpp takes a schema without a `type` for.
SHAPES: Mapping[str, str] = {"properties": "object", "items": "array", "prefixItems": "array"}
DIALECTS = re.compile(
    r"https?://json-schema\.org/(draft/2020-12/schema|draft/2019-09/schema|draft-07/schema)#?"
)


def check_held(response_format: Mapping[str, Any] | None) -> None:
    """Check that llama.cpp can enforce a format's schema in full.

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
    choices: list[tuple[Part, SchemaPath]] = []
    waiting: list[tuple[Any, SchemaPath]] = [(schema, ())]
    while waiting:
        part, path = waiting.pop()
        form = _check(part, path)
        waiting += _inner(part, path)
        if form == "oneOf":
            choices.append((part, path))
        elif form == "$ref":
            reference = check_reference(part, definitions, path)
            if reference not in used:
                used.append(reference)
                group, name = reference[2:].split("/")
                waiting.append(_schema(group, definitions[reference], (group, name)))
    for part, path in choices:
        check_one_of(part, definitions, path)
    check_definitions(definitions, used)


def check_part(part: Part) -> None:
    """Check one schema, but not those in it, its references and whether its `oneOf` exclude.

    Raises:
        NotHeldError: it has a keyword, a value or a combination that isn't known to hold.

    """
    _check(part, ("",))


def check_stop(stop: Sequence[str], response_format: Mapping[str, Any] | None) -> None:
    """Refuse stop texts for an answer that has to be complete JSON.

    Raises:
        OptionsRefusedError: both are set.

    """
    if stop and (response_format or {}).get("type") == "json_schema":
        raise OptionsRefusedError(
            "Beside a JSON schema `stop` isn't possible: it would cut the answer within its JSON.",
            extensions={"field": "stop"},
        )


def _check(part: Part, path: SchemaPath) -> str | None:
    """Check one schema without those in it; return the keyword that decides alone, if one does."""
    if len(path) > MAX_DEPTH:
        raise refuse(path[-1], path, "it is nested too deeply")
    form = next((keyword for keyword in ALONE if keyword in part), None)
    types = _types(part, path)
    _check_keywords(part, form, types, path)
    if form in {"anyOf", "enum", "oneOf"}:
        check_list(part, form, path)
    if form in {"const", "enum"}:
        _check_values(part, form, types, path)
    if form is None:
        check_object(part, path)
        check_array(part, path)
        check_string(part, path)
        check_integers(part, types, path)
    return form


def _check_keywords(part: Part, form: str | None, types: list[str], path: SchemaPath) -> None:
    """Refuse the first keyword that isn't in the lists."""
    allowed = ANNOTATIONS if path else ANNOTATIONS | ROOT
    if form is not None:
        allowed |= {form} | ALONE[form]
    else:
        allowed |= {"type"}.union(*(OF_TYPES[name] for name in types))
    for keyword in part:
        if keyword not in allowed:
            raise refuse(keyword, path, _reason(keyword, form, types))
        # It bounds integers only, and here other numbers are allowed too.
        if form is None and keyword in OF_TYPES["integer"] and "number" in types:
            raise refuse(keyword, path, "it holds for `integer`, not for `number`")


def _reason(keyword: str, form: str | None, types: list[str]) -> str:
    """Say why a keyword that isn't in the lists isn't."""
    types_with_it = [name for name, keywords in OF_TYPES.items() if keyword in keywords]
    if keyword in ROOT:
        return "it may only stand at the beginning"
    if form is not None and (types_with_it or keyword in ALONE or keyword == "type"):
        return f"not beside `{form}`"
    if keyword == "format" and types and NUMBER_FORMATS.keys() >= set(types) - {"null"}:
        formats = ", ".join(sorted(frozenset().union(*NUMBER_FORMATS.values())))
        return f"of numbers only {formats} are known, and int32 with a lower and an upper bound"
    if types_with_it and not types:
        return f"it needs a `type`: {types_with_it[0]}"
    if types_with_it:
        return f"it holds for `{types_with_it[0]}`, not for `{', '.join(types)}`"
    return "it isn't among the keywords that hold"


def _types(part: Part, path: SchemaPath) -> list[str]:
    """Return the types of a schema; without a `type`, what it is taken for."""
    if "type" not in part:
        return next(([name] for keyword, name in SHAPES.items() if keyword in part), [])
    types = part["type"] if isinstance(part["type"], list) else [part["type"]]
    if not types or not all(isinstance(name, str) and name in OF_TYPES for name in types):
        raise refuse("type", path, "it has to name JSON's types")
    return types


def _check_values(part: Part, form: str, types: list[str], path: SchemaPath) -> None:
    """Refuse values that llama.cpp would write although `type` excludes them."""
    values = part[form] if form == "enum" else [part[form]]
    check_values(values, form, path)
    if "type" in part and not all(is_of(value, types) for value in values):
        raise refuse(form, path, "it has a value that isn't of its `type`")


def _inner(part: Part, path: SchemaPath) -> Iterator[tuple[Part, SchemaPath]]:
    """Yield the schemas in a schema that was checked."""
    for name, inner in part.get("properties", {}).items():
        yield _schema("properties", inner, (*path, "properties", name))
    for keyword in ("anyOf", "oneOf", "prefixItems"):
        for number, inner in enumerate(part.get(keyword, ())):
            yield _schema(keyword, inner, (*path, keyword, str(number)))
    if "items" in part:
        yield _schema("items", part["items"], (*path, "items"))
    if not isinstance(part.get("additionalProperties", False), bool):
        keyword = "additionalProperties"
        yield _schema(keyword, part[keyword], (*path, keyword))


def _schema(keyword: str, part: Any, path: SchemaPath) -> tuple[Part, SchemaPath]:  # noqa: ANN401  # JSON can be anything
    """Return a schema that a keyword holds, with its path; refuse what isn't a schema."""
    if not isinstance(part, dict):
        is_list = keyword == "items" and isinstance(part, list)
        instead = "; a list of them is `prefixItems`" if is_list else ""
        raise refuse(keyword, path, f"a schema has to be an object{instead}")
    return part, path
