"""One check of rows stands in every way to an engine: requests, jobs, searches, load."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx2 import AsyncClient
from serving import batched, make_app, running, serve_instead
from test_job_runner import bench

from app.engines.base import Encoded, EngineRequest, FloatArray, Task
from app.engines.fake import DIMENSIONS, FakeClassifier, FakeEmbedder, FakeOptions
from app.engines.openvino.agreement import answers, compare
from app.engines.rows import RowsRefusedError, checked
from app.errors import EngineError
from app.features.jobs.embedders import LoadedEmbedder
from app.models.entries import Served
from app.models.loading import warm
from app.runtime.runtime import Runtime

APP = Path(__file__).parent.parent / "app"
EMBEDDER = """
[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
required = true
"""
EMBEDDING = EngineRequest(name="vectors", task=Task.EMBEDDING, engine="fake")
CLASSIFYING = EngineRequest(name="labels", task=Task.CLASSIFICATION, engine="fake")
# What stands in the row of a text with this word in it; no engine may answer so.
NOT_FINITE = {"nan": np.nan, "inf": np.inf, "neginf": -np.inf}
NO_LENGTH = {"zero": 0.0, "tiny": 1e-30, "huge": 1e30}
BAD = NOT_FINITE | NO_LENGTH
# "leak" is a text that spoils its whole batch, as an overflow in a padded batch can.
LEAK = "leak"


def spoil(rows: FloatArray, batch: Sequence[Encoded], values: dict[str, float]) -> FloatArray:
    """Put the value that a text names into its row."""
    words = [bytes(item.token_ids).decode().split()[0] for item in batch]
    for row, word in zip(rows, words, strict=True):
        if word in NOT_FINITE:
            row[0] = values[word]
        elif word in values:
            row[:] = values[word]
    if LEAK in words:
        rows[:] = np.nan
    return rows


class SpoiltEmbedder(FakeEmbedder):
    def __init__(self) -> None:
        super().__init__(EMBEDDING, FakeOptions())

    def embed(self, batch: Sequence[Encoded]) -> FloatArray:
        rows = spoil(super().embed(batch).copy(), batch, BAD)
        words = [bytes(item.token_ids).decode().split()[0] for item in batch]
        return rows[:, :-1] if "narrow" in words else rows[:-1] if "missing" in words else rows


class SpoiltClassifier(FakeClassifier):
    def __init__(self) -> None:
        super().__init__(CLASSIFYING, FakeOptions())

    def classify(self, batch: Sequence[Encoded]) -> FloatArray:
        return spoil(super().classify(batch).copy(), batch, NOT_FINITE)


EVERY_BAD = [*BAD, LEAK, "narrow", "missing"]


@pytest.mark.parametrize("bad", EVERY_BAD)
async def test_a_job_s_document_without_a_usable_vector_fails_alone_and_says_so(
    tmp_path: Path, bad: str
) -> None:
    model = batched(SpoiltEmbedder())
    async with bench(f"sqlite:///{tmp_path}/jobs.db") as it:
        keys = await it.store("good one", f"{bad} text", "another good one")
        await it.submit(keys)
        embedder = LoadedEmbedder("vectors", Served(model=model, version="1"))
        assert await it.runner(embedder).run_next()
        job = await it.job()
        assert job.result is not None
        assert (job.done, job.failed, job.error_code) == (2, 1, "documents_failed")
        assert job.result["errors"] == [{"id": "d1", "error": "inference_failed"}]
        assert {key for key, _, _ in await it.passages()} == {keys[0], keys[2]}
    model.close(timeout_s=5)


async def ask(client: AsyncClient, path: str, **body: Any) -> tuple[int, str | None]:
    answer = await client.post(path, json=body)
    return answer.status_code, answer.json().get("code")


async def test_a_vector_that_is_none_is_refused_by_every_route_and_alone(tmp_path: Path) -> None:
    app = make_app(tmp_path, EMBEDDER)
    async with running(app) as client:
        serve_instead(app, SpoiltEmbedder())
        alone = (await client.post("/embed", json={"texts": ["fine"]})).json()["embeddings"]
        for bad in EVERY_BAD:
            failed = (500, "inference_failed")
            assert await ask(client, "/embed", texts=["fine", f"{bad} text"]) == failed, bad
            assert await ask(client, "/search", query=f"{bad} text") == failed, bad
            asked = {"model": "vectors", "input": f"{bad} text"}
            assert (await client.post("/v1/embeddings", json=asked)).status_code == 500
        both = await client.post("/embed", json={"texts": ["fine", "fine too"]})
    assert both.json()["embeddings"][0] == alone[0]


async def test_of_a_batch_only_the_texts_without_a_number_fail(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    async with running(app) as client:
        serve_instead(app, SpoiltClassifier())
        texts = ["fine", "nan text", "inf text", "neginf text", "leak text", "fine too"]
        results = (await client.post("/predict-batch", json={"texts": texts})).json()["results"]
        runtime: Runtime = app.state.runtime
        counted = runtime.metrics.engine_failures.labels("dummy")._value.get()
    assert ["label" in result for result in results] == [True, *[False] * 4, True]
    assert {result["error"]["code"] for result in results[1:5]} == {"inference_failed"}
    assert counted == 4


async def test_zeros_are_scores_and_only_no_vector(tmp_path: Path) -> None:
    """A classifier's raw numbers may all be 0; a vector of zeros is near to nothing."""

    class Zeros(FakeClassifier):
        def classify(self, batch: Sequence[Encoded]) -> FloatArray:
            return np.zeros((len(batch), 2), dtype=np.float32)

    engine = Zeros(CLASSIFYING, FakeOptions())
    assert checked(engine)(engine.encode(["x"])).tolist() == [[0, 0]]


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN or infinity"), (0.0, "no length")])
def test_a_model_whose_first_rows_are_none_is_not_loaded(value: float, message: str) -> None:
    class Broken(FakeEmbedder):
        def embed(self, batch: Sequence[Encoded]) -> FloatArray:
            return np.full((len(batch), DIMENSIONS), value, dtype=np.float32)

    with pytest.raises(EngineError, match=f"2 of 2 .*{message}"):
        warm(Broken(EMBEDDING, FakeOptions()))


@pytest.mark.parametrize("bad", EVERY_BAD)
def test_a_converted_model_with_a_row_that_is_none_disagrees(bad: str) -> None:
    texts = ["one", f"{bad} text", "three"]
    sound = FakeEmbedder(EMBEDDING, FakeOptions())
    expected = answers(sound, texts)
    assert compare(sound, expected, texts).agrees
    assert not compare(SpoiltEmbedder(), expected, texts).agrees
    assert not compare(sound, answers(SpoiltEmbedder(), texts), texts).agrees


def test_the_refusal_says_how_many_rows_and_nothing_of_the_texts() -> None:
    engine = SpoiltEmbedder()
    with pytest.raises(RowsRefusedError) as refused:
        checked(engine)(engine.encode(["nan secret", "fine"]))
    assert str(refused.value) == "1 of 2 rows of the engine hold NaN or infinity"


def test_nothing_goes_round_the_check() -> None:
    calls = re.compile(r"(engine|reference|model)\.(classify|embed)\b")
    found = {
        file.relative_to(APP).as_posix()
        for file in APP.rglob("*.py")
        if calls.search(file.read_text(encoding="utf-8"))
    }
    assert found == {"engines/rows.py"}
