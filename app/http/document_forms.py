"""Forms of JSON Schema that generators of clients read, and examples that are whole."""

from collections.abc import Iterator, Mapping
from typing import Any

Schemas = Mapping[str, Any]
NULL = {"type": "null"}
# Fields of bodies that hold the name of a model.
MODEL_FIELDS = frozenset({"id", "model", "model_name", "name", "rerank"})


def simplify(node: Any) -> None:  # noqa: ANN401  # any part of a document
    """Loosen, in place, what generators of clients can't read.

    "Unknown fields may only be null" makes some of them crash, and others type every field as
    undefined; the document then says that there may be unknown fields.
    """
    if isinstance(node, dict):
        if node.get("additionalProperties") == NULL and "properties" in node:
            node["additionalProperties"] = True
        for value in node.values():
            simplify(value)
    elif isinstance(node, list):
        for value in node:
            simplify(value)


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the operations of all paths."""
    for methods in document["paths"].values():
        yield from methods.values()


def complete_examples(schemas: Schemas) -> None:
    """Put the nulls of required fields back into examples, in place: FastAPI leaves them out."""
    for schema in schemas.values():
        for example in schema.get("examples", ()):
            _complete(example, schema, schemas)


def _complete(value: object, schema: Any, schemas: Schemas) -> None:  # noqa: ANN401  # JSON
    """Complete a value by a schema that describes it."""
    form = _resolved(schema, schemas)
    if isinstance(value, list):
        for item in value:
            _complete(item, form.get("items", {}), schemas)
    if not isinstance(value, dict):
        return
    fields = form.get("properties", {})
    for name in form.get("required", ()):
        if name not in value and _may_be_null(fields.get(name, {})):
            value[name] = None
    for name in fields.keys() & value.keys():
        _complete(value[name], fields[name], schemas)


def _resolved(schema: dict[str, Any], schemas: Schemas) -> dict[str, Any]:
    """Return what a reference stands for, and of alternatives the one beside null."""
    others = [one for one in schema.get("anyOf", ()) if one != NULL]
    if len(others) == 1:
        schema = others[0]
    if "$ref" in schema:
        found: dict[str, Any] = schemas.get(schema["$ref"].rpartition("/")[2], {})
        return found
    return schema


def _may_be_null(schema: dict[str, Any]) -> bool:
    return schema == NULL or NULL in schema.get("anyOf", ())


def name_models(document: dict[str, Any], models: Mapping[str, str]) -> None:
    """Let examples name models of the catalogue, in place.

    Args:
        document: of OpenAPI.
        models: names of the catalogue, by those that the examples were written with.

    """
    for schema in document["components"]["schemas"].values():
        for example in schema.get("examples", ()):
            _rename(example, models)
    for operation in operations(document):
        for parameter in operation.get("parameters", ()):
            examples = parameter["schema"].get("examples", [])
            if parameter["name"] in MODEL_FIELDS:
                examples[:] = [models.get(name, name) for name in examples]


def _rename(value: Any, models: Mapping[str, str]) -> None:  # noqa: ANN401  # JSON
    if isinstance(value, list):
        for item in value:
            _rename(item, models)
    elif isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, str) and name in MODEL_FIELDS:
                value[name] = models.get(item, item)
            else:
                _rename(item, models)
