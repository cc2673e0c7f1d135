"""`/predict/{name}` and `/predict-batch/{name}` of classes that an operator brings."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from httpx2 import AsyncClient, Response
from openapi_spec_validator import validate
from serving import FAKE, make_app, running, serving

from app.http.json_route import JsonHandler
from app.runtime.runtime import Runtime

IRIS = """
from dataclasses import dataclass

@dataclass
class Flower:
    sepal: float
    petal: float = 0.0

class Iris:
    labels = ("setosa", "virginica")

    def load(self, device):
        self.device = device

    def predict(self, items: list[Flower]) -> list[str]:
        if any(item.petal < 0 for item in items):
            raise ValueError("a petal of negative length")
        return ["virginica" if item.sepal > 5 else "setosa" for item in items]
"""
SCORES = """
from pydantic import BaseModel, Field

class Flower(BaseModel):
    name: str = Field(max_length=5)

class Answer(BaseModel):
    label: str
    score: float

class Scores:
    labels = ["long", "short"]
    version = "of April"

    def predict_one(self, item: Flower) -> Answer:
        return Answer(label="long" if len(item.name) > 3 else "short", score=len(item.name) / 10)
"""
MODELS = (
    FAKE
    + """
[[models]]
name = "iris"
engine = "python"
source = "file:iris.py:Iris"

[[models]]
name = "batch"
engine = "python"
source = "file:scores.py:Scores"
"""
)


def write_classes(folder: Path) -> None:
    (folder / "iris.py").write_text(IRIS, encoding="utf-8")
    (folder / "scores.py").write_text(SCORES, encoding="utf-8")


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    folder = tmp_path_factory.mktemp("app")
    write_classes(folder)
    async with serving(folder, MODELS) as client:
        yield client


def problem(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


async def test_a_class_answers_under_its_name_with_its_own_types(client: AsyncClient) -> None:
    answer = await client.post("/predict/iris", json={"sepal": 6.1})
    assert (answer.status_code, answer.json()) == (200, "virginica")
    assert answer.headers["content-type"] == "application/json"
    answer = await client.post("/predict/batch", json={"name": "anna"})
    assert answer.json() == {"label": "long", "score": 0.4}


async def test_a_body_that_its_types_refuse_is_422_and_isnt_repeated(client: AsyncClient) -> None:
    answer = await client.post("/predict/iris", json={"sepal": "secret", "petal": 1})
    assert problem(answer) == (422, "invalid_request")
    assert answer.json()["errors"] == [
        {"loc": ["body", "sepal"], "msg": "Input should be a valid number", "type": "float_type"}
    ]
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "malformed_json"),
        (b'{"sepal": NaN}', 400, "malformed_json"),
        (b'{"sepal": 1e999}', 422, "invalid_request"),
        (b"null", 422, "invalid_request"),
        (b"[]", 422, "invalid_request"),
        (b"", 422, "invalid_request"),
    ],
)
async def test_what_is_no_body_for_it_has_a_typed_error(
    client: AsyncClient, content: bytes, status: int, code: str
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await client.post("/predict/iris", content=content, headers=headers)
    assert problem(answer) == (status, code)


async def test_a_table_may_have_hundreds_of_columns(client: AsyncClient) -> None:
    wide = {f"column{n}": n for n in range(500)}
    assert (await client.post("/predict/iris", json={"sepal": 1, **wide})).status_code == 200


async def test_items_of_a_batch_have_an_answer_or_an_error_each_in_order(
    client: AsyncClient,
) -> None:
    items = [{"sepal": 6}, {"petal": 1}, {"sepal": 6, "petal": -1}, {"sepal": 4}]
    answer = await client.post("/predict-batch/iris", json={"items": items})
    good, wrong, failed, last = answer.json()["results"]
    assert answer.json()["model"] == "iris"
    assert (good["answer"], last["answer"]) == ("virginica", "setosa")
    assert wrong["error"]["code"] == "invalid_request"
    assert wrong["error"]["errors"][0]["loc"] == ["body", "items", 1, "sepal"]
    assert failed["error"] == {
        "code": "inference_failed",
        "detail": "The engine failed on this input.",
    }


@pytest.mark.parametrize("items", [[], [{"sepal": 1}] * 257, "x", None])
async def test_a_batch_has_1_to_256_items(client: AsyncClient, items: Any) -> None:
    answer = await client.post("/predict-batch/iris", json={"items": items})
    assert problem(answer) == (422, "invalid_request")


async def test_a_classifier_answers_as_before_and_other_names_are_404(client: AsyncClient) -> None:
    answer = await client.post("/predict/dummy", json={"text": "good"})
    assert set(answer.json()) == {"text", "label", "score", "model", "truncated"}
    answer = await client.post("/predict/none", json={"text": "good"})
    assert problem(answer) == (404, "model_not_found")
    for name in ("none", "dummy"):
        answer = await client.post(f"/predict-batch/{name}", json={"items": [1]})
        assert problem(answer) == (404, "model_not_found")


async def test_a_class_is_no_model_of_the_route_without_a_name(client: AsyncClient) -> None:
    answer = await client.post("/predict", json={"text": "good", "model_name": "iris"})
    assert problem(answer) == (404, "model_not_found")


async def test_models_tell_of_a_class_what_it_says_of_itself(client: AsyncClient) -> None:
    models = {model["name"]: model for model in (await client.get("/models")).json()["models"]}
    iris, scores = models["iris"], models["batch"]
    assert (iris["task"], iris["engine"], iris["device"]) == ("python", "python", "cpu")
    assert (iris["labels"], iris["default"], iris["required"]) == (
        ["setosa", "virginica"],
        False,
        True,
    )
    assert scores["version"] == "of April"
    assert len(iris["version"]) == 12


async def test_the_document_has_a_path_for_each_class_with_its_schema(client: AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    validate(document)
    schemas = document["components"]["schemas"]

    def schema_of(path: str) -> Any:
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        return schemas[content["schema"]["$ref"].rpartition("/")[2]]

    assert set(schema_of("/predict/iris")["properties"]) == {"sepal", "petal"}
    assert schema_of("/predict/batch")["properties"]["name"]["maxLength"] == 5
    many = document["paths"]["/predict-batch/batch"]["post"]["requestBody"]["content"]
    assert many["application/json"]["schema"]["required"] == ["items"]
    names = [o["operationId"] for item in document["paths"].values() for o in item.values()]
    assert len(names) == len(set(names))
    assert "/predict-batch/{model_name}" not in document["paths"]


def test_these_routes_are_answered_by_a_plan(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    handlers = [
        context.original_route.get_route_handler().__self__  # type: ignore[attr-defined]
        for context in iter_route_contexts(app.routes)
        if (path := context.path or "").endswith("{model_name}") and path.startswith("/predict")
    ]
    assert len(handlers) >= 2
    assert all(isinstance(h, JsonHandler) and h.plan is not None for h in handlers)


async def test_the_document_is_made_anew_when_a_class_is_loaded(tmp_path: Path) -> None:
    write_classes(tmp_path)
    app = make_app(tmp_path, MODELS)
    async with running(app) as client:
        runtime: Runtime = app.state.runtime
        entry = next(e for e in runtime.registry.entries if e.spec.name == "iris")
        served, entry.served = entry.served, None
        assert "/predict/iris" not in (await client.get("/openapi.json")).json()["paths"]
        entry.served = served
        assert "/predict/iris" in (await client.get("/openapi.json")).json()["paths"]


async def test_a_log_entry_has_the_label_that_a_class_declares_and_its_input_by_policy(
    tmp_path: Path,
) -> None:
    write_classes(tmp_path)
    async with serving(tmp_path, MODELS, prediction_input="text") as client:
        await client.post("/predict/iris", json={"sepal": 6})
        await client.post("/predict/batch", json={"name": "anna"})
        await client.post("/predict/iris", json={"sepal": "x"})
        rows: list[Any] = []
        while len(rows) < 3:  # they are written a moment later
            rows = (await client.get("/predictions")).json()["predictions"]
    refused, scored, labelled = rows
    assert (labelled["task"], labelled["model"], labelled["label"]) == (
        "python",
        "iris",
        "virginica",
    )
    assert json.loads(labelled["input"]) == {"sepal": 6}
    assert (scored["label"], scored["score"], scored["version"]) == ("long", 0.4, "of April")
    assert (refused["status"], refused["error"]) == (422, "invalid_request")


async def test_a_class_has_the_metrics_of_every_model(client: AsyncClient) -> None:
    await client.post("/predict/iris", json={"sepal": 6})
    lines = (await client.get("/metrics")).text
    assert 'mlapi_batch_size_count{model="iris"}' in lines
    assert 'mlapi_model_ready{model="iris"} 1.0' in lines
    assert 'handler="/predict/{model_name}"' in lines
