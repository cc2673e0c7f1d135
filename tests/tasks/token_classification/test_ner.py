"""`/ner`: entities of one text or of several, with their places in code points."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx2 import AsyncClient
from serving import serving
from test_schemas import check_problem

pytestmark = pytest.mark.core

MODELS = """
[[models]]
name = "names"
task = "token-classification"
engine = "fake"
fake = { fail_on = "poison" }

[[models]]
name = "short"
task = "token-classification"
engine = "fake"
limits = { max_chars = 5 }

[[models]]
name = "mood"
engine = "fake"
"""
TEXT = "👩‍🚀 Ada Lovelace met ÉMILE\u0301 in 1833"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("app"), MODELS) as client:
        yield client


async def ask(client: AsyncClient, path: str = "/ner", **body: Any) -> Any:
    return await client.post(path, json=body)


async def test_entities_have_their_places_in_code_points(client: AsyncClient) -> None:
    answer = await ask(client, text=TEXT)
    assert answer.status_code == 200
    body = answer.json()
    assert body["model"] == "names"
    first = body["entities"][0]
    assert (first["label"], first["text"]) == ("PER", "Ada Lovelace")
    for entity in body["entities"]:
        assert TEXT[entity["start"] : entity["end"]] == entity["text"]
        assert 0.9 < entity["score"] <= 1
    assert list(body["entities"][0]) == ["label", "score", "text", "start", "end"]


async def test_without_aggregation_each_token_is_an_entity(client: AsyncClient) -> None:
    answer = (await ask(client, text=TEXT, aggregation="none")).json()
    assert [(e["label"], e["text"]) for e in answer["entities"]][:2] == [
        ("B-PER", "Ada"),
        ("I-PER", "Lovelace"),
    ]


@pytest.mark.parametrize("way", ["simple", "first", "average", "max"])
async def test_every_aggregation_is_taken(client: AsyncClient, way: str) -> None:
    answer = (await ask(client, text=TEXT, aggregation=way)).json()
    assert answer["entities"][0]["text"] == "Ada Lovelace"


async def test_each_of_several_texts_has_its_entities_or_its_error(client: AsyncClient) -> None:
    texts = ["Ada", "", "no names", " ", "x" * 20_001, "poison", "met Bob"]
    answer = (await ask(client, texts=texts)).json()
    assert answer["model"] == "names"
    kinds = [r["error"]["code"] if "error" in r else len(r["entities"]) for r in answer["results"]]
    assert kinds == [1, "text_empty", 0, 0, "text_too_long", "inference_failed", 1]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "either text or texts"),
        ({"text": "a", "texts": ["a"]}, "either text or texts"),
        ({"text": ""}, "at least 1 character"),
        ({"texts": []}, "at least 1 item"),
        ({"texts": ["a"] * 257}, "at most 256 items"),
        ({"text": "a", "aggregation": "best"}, "'none', 'simple', 'first', 'average' or 'max'"),
        ({"text": "a", "top_k": 1}, "Extra inputs"),
        ({"text": "x" * 20_001}, "at most 20000 characters"),
        ({"text": "x" * 6, "model_name": "short"}, "at most 5 characters"),
    ],
)
async def test_a_wrong_request_is_told_what_is_wrong(
    client: AsyncClient, body: dict[str, Any], words: str
) -> None:
    answer = await ask(client, **body)
    check_problem(answer, 422, "invalid_request")
    assert words in str(answer.json()["errors"])


async def test_a_text_that_fails_is_the_error_of_its_request(client: AsyncClient) -> None:
    check_problem(await ask(client, text="poison"), 500, "inference_failed")


async def test_the_model_is_chosen_by_name_or_path(client: AsyncClient) -> None:
    named = await ask(client, text="Ada", model_name="short")
    by_path = await ask(client, "/predict/short", text="Ada")
    assert named.json() == by_path.json()
    assert named.json()["model"] == "short"
    check_problem(await ask(client, text="Ada", model_name="none"), 404, "model_not_found")
    check_problem(await ask(client, text="Ada", model_name="mood"), 404, "model_not_found")
    clash = await ask(client, "/predict/short", text="Ada", model_name="names")
    check_problem(clash, 409, "model_name_conflict")
    classified = await ask(client, "/predict/mood", text="Ada")
    assert classified.json()["label"] in {"POSITIVE", "NEGATIVE"}


async def test_models_tell_labels_and_how_long_a_text_may_be(client: AsyncClient) -> None:
    models = {m["name"]: m for m in (await client.get("/models")).json()["models"]}
    assert models["names"]["task"] == "token-classification"
    assert models["names"]["max_chars"] == 20_000
    assert models["short"]["max_chars"] == 5
    assert models["mood"]["max_chars"] == 2_000
    assert "B-PER" in models["names"]["labels"]


async def test_the_log_has_an_entry_for_each_text(client: AsyncClient) -> None:
    answer = await ask(client, texts=["Ada", "none", ""])
    identity = answer.headers["X-Request-ID"]
    rows: list[Any] = []
    while len(rows) < 3:
        page = await client.get("/predictions", params={"request_id": identity})
        rows = page.json()["predictions"]
    told = {(row["task"], row["label"], row["error"]) for row in rows}
    task = "token-classification"
    assert told == {(task, "PER", None), (task, None, None), (task, None, "text_empty")}


async def test_the_document_has_the_route_and_its_example(client: AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert "/ner" in document["paths"]
    schemas = document["components"]["schemas"]
    (example,) = schemas["NerRequest"]["examples"]
    answer = await ask(client, **example)
    assert answer.json()["entities"][0]["text"] == "Ada Lovelace"
