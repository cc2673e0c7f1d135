"""`/embed`: vectors of length one, in order, and what was cut."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import serving
from test_schemas import check_problem

EMBEDDER = """
[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
fake = { fail_on = "poison" }
limits = { max_tokens = 100 }

[[models]]
name = "dummy"
engine = "fake"
"""


async def embed(tmp_path: Path, texts: Sequence[Any], **more: Any) -> Any:
    async with serving(tmp_path, EMBEDDER) as client:
        return await client.post("/embed", json={"texts": texts, **more})


async def test_every_text_gets_its_vector_of_length_one(tmp_path: Path) -> None:
    answer = await embed(tmp_path, ["a", "b", "a"])
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model"], body["dimensions"], body["truncated"]) == ("vectors", 384, [])
    vectors = np.array(body["embeddings"])
    assert vectors.shape == (3, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])


async def test_texts_that_were_cut_are_named(tmp_path: Path) -> None:
    answer = await embed(tmp_path, ["short", "x" * 101, "x" * 100, "y" * 5000])
    assert answer.json()["truncated"] == [1, 3]


async def test_256_long_texts_are_embedded_in_one_request(tmp_path: Path) -> None:
    answer = await embed(tmp_path, ["text " * 100] * 256)
    assert len(answer.json()["embeddings"]) == 256


@pytest.mark.parametrize("texts", [[], [""], ["x", ""], ["x"] * 257, [1], [None], ["x", ["y"]]])
async def test_wrong_texts_are_422(tmp_path: Path, texts: Sequence[Any]) -> None:
    check_problem(await embed(tmp_path, texts), 422, "invalid_request")


async def test_a_text_that_fails_is_named(tmp_path: Path) -> None:
    problem = check_problem(await embed(tmp_path, ["a", "poison"]), 500, "inference_failed")
    assert "texts[1]" in problem["detail"]


@pytest.mark.parametrize("name", ["nobody", "dummy"])
async def test_an_unknown_model_or_a_classifier_is_404(tmp_path: Path, name: str) -> None:
    check_problem(await embed(tmp_path, ["x"], model_name=name), 404, "model_not_found")


async def test_a_scheduler_s_own_error_is_answered_as_it_is(tmp_path: Path) -> None:
    async with serving(tmp_path, EMBEDDER, queue_tokens=1) as client:
        late = await client.post(
            "/embed", json={"texts": ["x" * 1_000_000]}, headers={"X-Request-Timeout-Ms": "1"}
        )
    assert late.json()["code"] in {"overloaded", "deadline_exceeded"}


async def test_openai_s_dialect_cuts_unless_a_field_of_others_forbids_it(tmp_path: Path) -> None:
    async with serving(tmp_path, EMBEDDER) as client:

        async def embed(**fields: Any) -> Any:
            return await client.post("/v1/embeddings", json={"input": ["a", "y" * 5000]} | fields)

        for may in ({}, {"truncation": True}, {"truncate": True}, {"truncation_side": "right"}):
            assert (await embed(**may)).status_code == 200, may
        for name, value in (("truncation", False), ("truncate", "NONE")):
            refused = await embed(**{name: value})
            error = refused.json()["error"]
            assert (refused.status_code, error["code"]) == (400, "text_too_long")
            assert "Text 1" in error["message"]
        for other in ({"truncate_prompt_tokens": 8}, {"truncation_side": "left"}):
            error = (await embed(**other)).json()["error"]
            assert (error["code"], error["param"]) == ("unsupported_field", *other)
