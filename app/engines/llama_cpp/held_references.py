"""Which `$ref` llama.cpp resolves as JSON Schema does."""

import re
from collections.abc import Collection, Iterator, Mapping
from string import digits
from typing import Any

from app.engines.llama_cpp.held_alternatives import Definitions
from app.engines.llama_cpp.held_values import NotHeldError, Part, SchemaPath, refuse

GROUPS = ("$defs", "definitions")
# Without the characters that pointers and addresses escape.
REFERENCE = re.compile(r"#/(\$defs|definitions)/[\w.\-]+", re.ASCII)
ODD_CHARACTERS = re.compile(r"[^a-zA-Z0-9-]+")
HYPHEN = re.compile("-")
NUMBER_OR_MORE = re.compile(r"\d*(-.*)?")


def definitions_of(schema: Part) -> Definitions:
    """Return a schema's definitions by the pointers to them."""
    groups = ((name, schema.get(name)) for name in GROUPS)
    return {
        f"#/{group}/{name}": part
        for group, parts in groups
        if isinstance(parts, dict)
        for name, part in parts.items()
    }


def check_reference(part: Part, definitions: Definitions, path: SchemaPath) -> str:
    """Return where a `$ref` leads to."""
    reference = part["$ref"]
    if not isinstance(reference, str) or not REFERENCE.fullmatch(reference):
        raise refuse("$ref", path, "it has to be #/$defs/ with a name of letters, digits, . _ -")
    if reference not in definitions:
        raise refuse("$ref", path, "there is no such definition")
    return reference


def check_definitions(definitions: Definitions, used: Collection[str]) -> None:
    """Refuse definitions that never end, or that llama.cpp confuses."""
    edges = {reference: set(_bare(definitions[reference])) for reference in used}
    for reference in used:
        if reference in _reachable(edges, reference):
            raise refuse("$ref", _path(reference), "it leads back to itself and to nothing else")
    # A rule's name is a pointer without its odd characters, and what is inside adds to it.
    rules = {reference: ODD_CHARACTERS.sub("-", reference[1:]) for reference in used}
    owners: dict[str, str] = {}
    for reference in used:
        if owners.setdefault(rules[reference], reference) != reference:
            raise _confused(owners[rules[reference]], reference)
    for reference in used:
        for hyphen in HYPHEN.finditer(rules[reference]):
            owner = owners.get(rules[reference][: hyphen.start()])
            rest = rules[reference][hyphen.end() :]
            if owner is not None and _is_inside(rest, definitions[owner]):
                raise _confused(owner, reference)


def _confused(first: str, second: str) -> NotHeldError:
    return refuse(
        "$ref",
        _path(second),
        f"llama.cpp takes it for a part of `{_path(first)[1]}`; rename one of them",
    )


def _is_inside(rest: str, part: Part) -> bool:
    """Return whether llama.cpp may give a rule's name to a part of another rule.

    Args:
        rest: of the name, behind that of the other rule and a hyphen.
        part: the schema of the other rule.

    """
    starts = (start for start in _starts(part) if rest.startswith(start))
    # llama.cpp adds a number to a name that is taken.
    return any(NUMBER_OR_MORE.fullmatch(rest, len(start)) for start in starts)


def _starts(part: Part) -> Iterator[str]:
    """Yield how what a schema's rules add to its name begins, up to the next hyphen."""
    for name in part.get("properties", ()):
        yield ODD_CHARACTERS.sub("-", name)
    if "anyOf" in part or "oneOf" in part or isinstance(part.get("type"), list):
        yield from digits
    if "items" in part:
        yield "item"
    if "prefixItems" in part:
        yield "tuple"
    if part.get("additionalProperties", False) is not False:
        yield "additional"


def _path(reference: str) -> SchemaPath:
    return tuple(reference.removeprefix("#/").split("/"))


def _bare(part: Any) -> Iterator[str]:  # noqa: ANN401  # JSON can be anything
    """Yield the references that a schema leads to without writing anything before."""
    waiting = [part]
    while waiting:
        schema = waiting.pop()
        if "$ref" in schema:
            yield schema["$ref"]
        waiting += [*schema.get("anyOf", ()), *schema.get("oneOf", ())]


def _reachable(edges: Mapping[str, set[str]], start: str) -> set[str]:
    reachable: set[str] = set()
    waiting = list(edges[start])
    while waiting:
        reference = waiting.pop()
        if reference not in reachable:
            reachable.add(reference)
            waiting += edges[reference]
    return reachable
