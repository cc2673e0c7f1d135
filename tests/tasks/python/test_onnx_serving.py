"""`/predict/{name}` and `/predict-batch/{name}` of graphs in `.onnx` files."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnxruntime
import pytest
from httpx2 import AsyncClient, Response
from openapi_spec_validator import validate
from serving import FAKE, FatalError, serving

from app.errors import CatalogError
from app.models.catalog import Catalog, read_catalog
from app.models.onnx_files import external_files

MODELS = (
    FAKE
    + """
[[models]]
name = "tariff"
engine = "onnx"
source = "file:linear.onnx"

[[models]]
name = "churn"
engine = "onnx"
source = "file:churn"
"""
)


def write_graphs(folder: Path) -> None:
    graphs.save(graphs.linear(), folder / "linear.onnx")
    (folder / "churn").mkdir()
    graphs.save(graphs.classifier(), folder / "churn" / "model.onnx")


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    folder = tmp_path_factory.mktemp("app")
    write_graphs(folder)
    async with serving(folder, MODELS, prediction_input="text") as client:
        yield client


def problem(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


async def test_a_graph_answers_under_its_name_by_the_names_of_its_inputs(
    client: AsyncClient,
) -> None:
    answer = await client.post("/predict/tariff", json={"x": [1, 0, 0, 0]})
    assert (answer.status_code, answer.json()) == (200, {"y": [1, -1]})
    answer = await client.post("/predict/churn", json={"x": [1, 2]})
    assert answer.json()["label"] == "yes"
    assert set(answer.json()["probabilities"]) == {"no", "yes"}


async def test_a_body_that_the_graph_does_not_take_is_422(client: AsyncClient) -> None:
    answer = await client.post("/predict/tariff", json={"x": [1, 0, 0]})
    assert problem(answer) == (422, "invalid_request")
    assert answer.json()["errors"][0]["loc"] == ["body", "x"]
    answer = await client.post("/predict/tariff", json={"y": "secret"})
    assert [error["type"] for error in answer.json()["errors"]] == ["missing", "extra_forbidden"]
    assert "secret" not in answer.text


async def test_a_graph_has_no_stream(client: AsyncClient) -> None:
    answer = await client.post("/predict/tariff/stream", json={"x": [1, 0, 0, 0]})
    assert '"code":"not_found"' in answer.text.replace(" ", "")


async def test_items_of_a_batch_have_an_answer_or_an_error_each_in_order(
    client: AsyncClient,
) -> None:
    items = [{"x": [1, 0, 0, 0]}, {"x": [1e39, 0, 0, 0]}, {"x": [0, 0, 1, 0]}]
    answer = await client.post("/predict-batch/tariff", json={"items": items})
    first, wrong, last = answer.json()["results"]
    assert (first["answer"], last["answer"]) == ({"y": [1, -1]}, {"y": [0, 1]})
    assert wrong["error"]["errors"][0]["loc"] == ["body", "items", 1, "x"]


async def test_requests_that_come_together_are_answered_as_the_library_answers_each(
    client: AsyncClient, tmp_path: Path
) -> None:
    rows = np.random.default_rng(8).standard_normal((64, 4)).astype(np.float32)
    got = await asyncio.gather(
        *(client.post("/predict/tariff", json={"x": row.tolist()}) for row in rows)
    )
    session = onnxruntime.InferenceSession(graphs.save(graphs.linear(), tmp_path / "m.onnx"))
    for row, answer in zip(rows, got, strict=True):
        ((expected,),) = session.run(None, {"x": row[None]})
        np.testing.assert_allclose(answer.json()["y"], expected, rtol=1e-5, atol=1e-6)
    metrics = (await client.get("/metrics")).text
    assert 'mlapi_batch_size_count{model="tariff"}' in metrics


async def test_models_and_the_document_tell_of_a_graph(client: AsyncClient) -> None:
    models = {model["name"]: model for model in (await client.get("/models")).json()["models"]}
    churn = models["churn"]
    assert (churn["engine"], churn["device"], churn["required"]) == ("onnx", "cpu", True)
    document = (await client.get("/openapi.json")).json()
    validate(document)
    schemas = document["components"]["schemas"]
    post = document["paths"]["/predict/tariff"]["post"]
    name = post["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert schemas[name]["properties"]["x"]["minItems"] == 4
    assert schemas[name]["required"] == ["x"]
    assert "/predict-batch/tariff" in document["paths"]


async def test_the_log_has_the_label_of_a_graph_with_zipmap(client: AsyncClient) -> None:
    answer = (await client.post("/predict/churn", json={"x": [3, 2]})).json()
    rows: list[Any] = []
    while not rows:  # it is written a moment later
        found = (await client.get("/predictions")).json()["predictions"]
        rows = [row for row in found if json.loads(row["input"] or "{}") == {"x": [3, 2]}]
    (row,) = rows
    assert (row["model"], row["label"]) == ("churn", "yes")
    assert row["score"] == answer["probabilities"]["yes"]


async def started(folder: Path, entry: str) -> str:
    """Return why a service with this entry doesn't start."""
    models = f'[[models]]\nname = "graph"\nengine = "onnx"\n{entry}\n'
    with pytest.raises(FatalError) as failed:
        async with serving(folder, models, features="none"):
            pass
    return str(failed.value)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_a_graph_with_another_digest_does_not_start(tmp_path: Path) -> None:
    path = graphs.save(graphs.linear(), tmp_path / "model.onnx")
    said = await started(tmp_path, f'source = "file:model.onnx"\nsha256 = "{"0" * 64}"')
    assert f"sha256 is {digest(path)}, the catalogue says 000" in said


async def test_what_is_no_onnx_file_is_refused_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x80\x04 a pickle")
    said = await started(tmp_path, 'source = "file:model.onnx"')
    assert "is not in the ONNX format, whatever its name says" in said


def test_files_that_a_graph_leaves_weights_to_are_found(tmp_path: Path) -> None:
    graphs.save(graphs.linear(), tmp_path / "alone.onnx")
    assert external_files(tmp_path / "alone.onnx") == []
    (tmp_path / "empty.onnx").touch()
    assert external_files(tmp_path / "empty.onnx") == []
    for name in ("weights.bin", "w" * 200):
        path = graphs.save_external(graphs.linear(), tmp_path / "model.onnx", location=name)
        assert external_files(path) == [name]


async def test_a_pin_of_a_graph_needs_one_of_its_weights_too(tmp_path: Path) -> None:
    path = graphs.save_external(graphs.linear(), tmp_path / "model.onnx", location="weights.bin")
    said = await started(tmp_path, f'source = "file:model.onnx"\nsha256 = "{digest(path)}"')
    assert "weights.bin, which sha256 doesn't cover" in said
    pins = f'"model.onnx" = "{digest(path)}", "weights.bin" = "{digest(tmp_path / "weights.bin")}"'
    folder = (
        f'[[models]]\nname = "graph"\nengine = "onnx"\nsource = "file:."\nsha256 = {{{pins}}}\n'
    )
    async with serving(tmp_path, folder, features="none") as client:
        answer = await client.post("/predict/graph", json={"x": [1, 0, 0, 0]})
        assert answer.json() == {"y": [1, -1]}
    (tmp_path / "weights.bin").unlink()
    said = await started(tmp_path, 'source = "file:model.onnx"')
    assert "weights.bin, which isn't beside it" in said


async def test_weights_outside_of_the_graphs_folder_are_refused(tmp_path: Path) -> None:
    path = graphs.save_external(graphs.linear(), tmp_path / "model.onnx", location="weights.bin")
    path.write_bytes(path.read_bytes().replace(b"weights.bin", b"../etc/pass"))
    said = await started(tmp_path, 'source = "file:model.onnx"')
    assert "takes weights from ../etc/pass, outside of its folder" in said


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ('task = "text-classification"', "leave task out; the graph says"),
        ("default = true", "default has no meaning"),
        ('adapter = "lora"', "adapter has no meaning"),
        ("workers = 2", 'workers is for models of the engine "python"'),
        ('pooling = "mean"', "pooling is for models of the task embedding"),
    ],
)
def test_fields_that_say_nothing_of_a_graph_are_refused(
    tmp_path: Path, fields: str, said: str
) -> None:
    with pytest.raises(CatalogError, match=said):
        catalog(tmp_path, f'source = "file:model.onnx"\n{fields}')


def test_a_graph_needs_a_source_and_is_required(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r'source is missing: "file:model\.onnx"'):
        catalog(tmp_path, "")
    read = catalog(tmp_path, 'source = "file:model.onnx"')
    assert read.is_required(read.specs[0])


def catalog(folder: Path, fields: str) -> Catalog:
    path = folder / "models.toml"
    path.write_text(f'[[models]]\nname = "graph"\nengine = "onnx"\n{fields}\n', encoding="utf-8")
    return read_catalog(path)
