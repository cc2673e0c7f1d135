"""The OpenAPI document has only forms that generators of clients read, and says what it can.

The generators themselves are tried by `make generators-check`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import AsyncClient
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # no types there
from serving import FAKE, FAKE_EMBEDDER, serving

from app.http.document_forms import complete_examples, name_models, simplify
from app.http.openai_schemas import Only

Place = tuple[str | int, ...]
TYPED = frozenset({"$ref", "allOf", "anyOf", "const", "oneOf", "type"})
# Keywords whose values are schemas, by name or in a list.
NAMED = ("properties", "patternProperties", "$defs")
LISTED = ("allOf", "anyOf", "oneOf", "prefixItems")
SINGLE = ("additionalProperties", "items", "contains")
# Of what typescript-fetch puts beside the schemas.
TAKEN = frozenset({"BaseAPI", "Configuration", "FetchError", "RequiredError", "ResponseError"})


def schemas(node: Any, place: Place = ()) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Give a schema and all that are in it; not conditions, which make no types."""
    if not isinstance(node, dict):
        return
    yield place, node
    for keyword in NAMED:
        for name, inner in node.get(keyword, {}).items():
            yield from schemas(inner, (*place, keyword, name))
    for keyword in LISTED:
        for number, inner in enumerate(node.get(keyword, ())):
            yield from schemas(inner, (*place, keyword, number))
    for keyword in SINGLE:
        yield from schemas(node.get(keyword), (*place, keyword))


@pytest.fixture(scope="module")
async def document(client: AsyncClient) -> dict[str, Any]:
    content: dict[str, Any] = (await client.get("/openapi.json")).json()
    return content


@pytest.fixture(scope="module")
async def found(document: dict[str, Any]) -> list[tuple[Place, dict[str, Any]]]:
    """All schemas of the document, with where they are."""
    components = document["components"]["schemas"]
    all_of_them = [one for name, c in components.items() for one in schemas(c, (name,))]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                place = (path, method, parameter["name"])
                all_of_them += schemas(parameter["schema"], place)
    assert len(all_of_them) > 500
    return all_of_them


async def test_an_enum_has_a_type(found: Any) -> None:
    assert [place for place, schema in found if "enum" in schema and "type" not in schema] == []


async def test_generators_find_a_name_of_its_own_for_all_they_make(
    found: Any, document: dict[str, Any]
) -> None:
    for place, schema in found:
        values = [str(value).upper() for value in schema.get("enum", ())]
        assert len(values) == len(set(values)), place
    assert not TAKEN & document["components"]["schemas"].keys()


async def test_no_field_is_of_type_null_alone(found: Any) -> None:
    null = {"null"}
    alone = [
        place
        for place, schema in found
        if place[-2:-1] != ("anyOf",) and place[-2:-1] != ("oneOf",)
        if {schema.get("type")} == null or schema.get("enum") == [None]
    ]
    assert alone == []


async def test_alternatives_are_no_part_of_an_object_with_fields(found: Any) -> None:
    mixed = [p for p, s in found if "properties" in s and {"oneOf", "anyOf", "allOf"} & s.keys()]
    assert mixed == []


async def test_what_has_no_type_says_in_words_what_it_takes(found: Any) -> None:
    untyped = [
        place
        for place, schema in found
        if not (TYPED & schema.keys() or "description" in schema)
        # The values of a free object, and the items of a list without any.
        if place[-1] not in {"additionalProperties", "items"}
    ]
    assert untyped == []


async def test_every_operation_says_its_security_and_every_tag_is_described(
    document: dict[str, Any],
) -> None:
    tags = {tag["name"]: tag.get("description") for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert "security" in operation, path
            assert all(tags[tag] for tag in operation["tags"]), path
    assert document["paths"]["/health"]["get"]["security"] == []
    assert document["paths"]["/predict"]["post"]["security"][-1] == {}


async def test_the_licence_and_the_address_are_said(document: dict[str, Any]) -> None:
    assert document["info"]["license"] == {"name": "MIT", "identifier": "MIT"}
    assert document["servers"] == [{"url": "/"}]


async def test_every_example_is_what_its_schema_describes(document: dict[str, Any]) -> None:
    components = document["components"]
    count = 0
    for name, schema in components["schemas"].items():
        described = {"$ref": f"#/components/schemas/{name}", "components": components}
        for example in schema.get("examples", ()):
            Draft202012Validator(described).validate(example)
            count += 1
    assert count > 40
    job = components["schemas"]["JobInfo"]["examples"][0]
    assert job["error"] is None


async def test_examples_name_models_of_the_catalogue(tmp_path: Path) -> None:
    async with serving(tmp_path, FAKE + FAKE_EMBEDDER) as client:
        document = (await client.get("/openapi.json")).json()
    components = document["components"]["schemas"]
    assert components["PredictResponse"]["examples"][0]["model"] == "dummy"
    assert components["EmbeddingsRequest"]["examples"][0]["model"] == "vectors"
    assert components["JobList"]["examples"][0]["jobs"][0]["model"] == "vectors"
    # There is no chat model: nothing that the example could name instead.
    assert components["ChatCompletionRequest"]["examples"][0]["model"] == "smollm2"
    (named,) = document["paths"]["/predict/{model_name}"]["post"]["parameters"][:1]
    assert named["schema"]["examples"] == ["dummy"]


@pytest.mark.parametrize(
    ("values", "schema"),
    [
        ((None, []), {"type": "array", "items": {}, "minItems": 0, "maxItems": 0}),
        ((None, 0), {"type": "number", "enum": [0]}),
        ((None, False), {"type": "boolean", "enum": [False]}),
        ((None, {}), {"type": "object", "maxProperties": 0}),
        ((None, "a", "b"), {"type": "string", "enum": ["a", "b"]}),
        (
            (None, ["text"]),
            {
                "type": "array",
                "items": {"type": "string", "enum": ["text"]},
                "minItems": 1,
                "maxItems": 1,
            },
        ),
    ],
)
def test_a_field_of_certain_values_has_a_schema_for_each_type(
    values: tuple[Any, ...], schema: dict[str, Any]
) -> None:
    made = Only(*values).__get_pydantic_json_schema__({}, lambda given: given)  # type: ignore[arg-type]
    assert made == {"anyOf": [schema, {"type": "null"}]}


def test_what_a_document_can_t_say_to_generators_is_loosened_and_nothing_else() -> None:
    null = {"type": "null"}
    document = {"a": [{"properties": {}, "additionalProperties": null}], "b": {"items": null}}
    simplify(document)
    assert document == {
        "a": [{"properties": {}, "additionalProperties": True}],
        "b": {"items": null},
    }


def test_examples_get_the_nulls_of_required_fields_back_also_in_what_they_hold() -> None:
    nullable = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    inner = {"properties": {"a": nullable, "b": nullable}, "required": ["a"]}
    outer = {
        "properties": {
            "one": {"anyOf": [{"$ref": "#/x/Inner"}, {"type": "null"}]},
            "many": {"type": "array", "items": {"$ref": "#/x/Inner"}},
        },
        "examples": [{"one": {}, "many": [{"a": "set"}, {"b": "set"}]}],
    }
    complete_examples({"Inner": inner, "Outer": outer})
    many = [{"a": "set"}, {"b": "set", "a": None}]
    assert outer["examples"] == [{"one": {"a": None}, "many": many}]


def test_only_names_of_models_are_replaced_in_examples() -> None:
    schema = {"examples": [{"model": "old", "text": "old", "list": [{"name": "old"}]}]}
    parameters: list[Any] = [
        {"name": n, "schema": {"examples": ["old"]}} for n in ("model", "text")
    ]
    paths = {"/": {"get": {"parameters": parameters}}}
    name_models({"components": {"schemas": {"S": schema}}, "paths": paths}, {"old": "new"})
    assert schema["examples"] == [{"model": "new", "text": "old", "list": [{"name": "new"}]}]
    assert [p["schema"]["examples"] for p in parameters] == [["new"], ["old"]]
