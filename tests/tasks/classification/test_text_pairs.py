"""`/predict` and `/predict-batch` with second texts, for models that read two together."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx2 import AsyncClient
from serving import make_app, running, serve_instead, serving
from test_schemas import check_problem

from app.engines.base import Encoded, FloatArray

pytestmark = pytest.mark.core

MODELS = """
[[models]]
name = "pairs"
engine = "fake"
limits = { max_chars = 20 }
"""


class OfOneKind:
    """A classifier that takes pairs only, or none."""

    kind = "test"
    device = "none"
    max_tokens = 500
    labels = ("no", "yes")

    def __init__(self, *, pairs: bool) -> None:
        self.takes_pairs = self.needs_pairs = pairs

    def encode(self, texts: Sequence[Any]) -> list[Encoded]:
        return [Encoded(token_ids=[1], is_truncated=False) for _ in texts]

    def classify(self, batch: Sequence[Encoded]) -> FloatArray:
        return np.tile(np.array([0.25, 0.75], dtype=np.float32), (len(batch), 1))

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("app"), MODELS) as client:
        yield client


async def test_a_pair_is_read_together_and_a_batch_has_the_same_answers(
    client: AsyncClient,
) -> None:
    one = (await client.post("/predict", json={"text": "a", "text_pair": "b"})).json()
    assert (one["text"], one["text_pair"]) == ("a", "b")
    swapped = (await client.post("/predict/pairs", json={"text": "b", "text_pair": "a"})).json()
    single = (await client.post("/predict", json={"text": "a"})).json()
    assert "text_pair" not in single
    assert len({one["score"], swapped["score"], single["score"]}) == 3
    body = {"texts": ["a", "b", "a"], "text_pairs": ["b", "a", ""]}
    many = (await client.post("/predict-batch", json=body)).json()["results"]
    assert [result.get("score") for result in many] == [one["score"], swapped["score"], None]
    assert many[2]["error"]["code"] == "text_empty"


async def test_a_second_text_is_as_bounded_as_the_first(client: AsyncClient) -> None:
    refused = await client.post("/predict", json={"text": "a", "text_pair": "x" * 21})
    (error,) = check_problem(refused, 422, "invalid_request")["errors"]
    assert error["loc"] == ["body", "text_pair"]
    body = {"texts": ["a", "x" * 21], "text_pairs": ["x" * 21, "b"]}
    many = (await client.post("/predict-batch", json=body)).json()["results"]
    assert [result["error"]["code"] for result in many] == ["text_too_long"] * 2
    check_problem(
        await client.post("/predict", json={"text": "a", "text_pair": ""}), 422, "invalid_request"
    )
    uneven = await client.post("/predict-batch", json={"texts": ["a"], "text_pairs": ["b", "c"]})
    check_problem(uneven, 422, "invalid_request")
    document = (await client.get("/openapi.json")).json()
    fields = document["components"]["schemas"]["PredictRequest"]["properties"]
    assert fields["text_pair"]["anyOf"][0]["maxLength"] == 20


async def test_a_model_of_one_kind_refuses_the_other(tmp_path: Path) -> None:
    app = make_app(tmp_path, MODELS)
    async with running(app) as client:
        serve_instead(app, OfOneKind(pairs=False))
        given = await client.post("/predict", json={"text": "a", "text_pair": "b"})
        assert check_problem(given, 400, "unsupported_field")["field"] == "text_pair"
        many = await client.post("/predict-batch", json={"texts": ["a"], "text_pairs": ["b"]})
        assert check_problem(many, 400, "unsupported_field")["field"] == "text_pairs"
        assert (await client.post("/predict", json={"text": "a"})).status_code == 200
        serve_instead(app, OfOneKind(pairs=True))
        lacking = await client.post("/predict", json={"text": "a"})
        (error,) = check_problem(lacking, 422, "invalid_request")["errors"]
        assert (error["loc"], error["type"]) == (["body", "text_pair"], "missing")
        assert (
            await client.post("/predict", json={"text": "a", "text_pair": "b"})
        ).status_code == 200
