"""`/similarity`: the cosines of what `/embed` answers."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx2 import AsyncClient
from libraries import library
from serving import FAKE_EMBEDDER, make_app, running, serve_instead, serving
from test_schemas import check_problem
from tiny import TEXTS
from tiny_embedders import embedder, on_torch, pooled, save_encoder

SHORT = FAKE_EMBEDDER + "limits = { max_tokens = 8 }\n"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("app"), SHORT) as client:
        yield client


async def ask(client: AsyncClient, **body: Any) -> Any:
    return await client.post("/similarity", json=body)


async def test_scores_are_cosines_of_the_vectors_that_embed_answers(client: AsyncClient) -> None:
    texts = ["a cat", "a dog", "nine letters", "a cat"]
    answer = (await ask(client, source="a cat", texts=texts)).json()
    embedded = (await client.post("/embed", json={"texts": texts})).json()["embeddings"]
    vectors = np.array(embedded)
    np.testing.assert_allclose(answer["scores"], vectors @ vectors[0], atol=1e-5)
    assert answer["scores"][0] == pytest.approx(1)
    assert max(answer["scores"]) <= 1
    assert (answer["model"], answer["source_truncated"]) == ("vectors", False)
    assert answer["truncated"] == [2]


async def test_a_source_that_is_cut_is_told(client: AsyncClient) -> None:
    answer = (await ask(client, source="nine letters", texts=["a", "nine more"])).json()
    assert (answer["source_truncated"], answer["truncated"]) == (True, [1])


async def test_dimensions_and_prompts_are_those_of_embed(client: AsyncClient) -> None:
    cut = (await ask(client, source="a", texts=["b"], dimensions=4)).json()
    vectors = (await client.post("/embed", json={"texts": ["a", "b"], "dimensions": 4})).json()
    first, second = np.array(vectors["embeddings"])
    assert cut["scores"][0] == pytest.approx(first @ second, abs=1e-5)
    unknown = await ask(client, source="a", texts=["b"], prompt_name="none")
    check_problem(unknown, 400, "unsupported_field")


@pytest.mark.parametrize(
    "body",
    [
        {"source": "a"},
        {"texts": ["a"]},
        {"source": "", "texts": ["a"]},
        {"source": "a", "texts": []},
        {"source": "a", "texts": [""]},
        {"source": "a", "texts": ["a"] * 257},
        {"source": ["a"], "texts": ["a"]},
    ],
)
async def test_a_wrong_request_is_refused(client: AsyncClient, body: dict[str, Any]) -> None:
    check_problem(await ask(client, **body), 422, "invalid_request")


async def test_an_unknown_model_is_404(client: AsyncClient) -> None:
    answer = await ask(client, source="a", texts=["b"], model_name="other")
    check_problem(answer, 404, "model_not_found")


async def test_vectors_of_any_length_are_compared_by_their_angle(tmp_path: Path) -> None:
    folder = embedder(save_encoder(tmp_path / "e"), tmp_path / "model", pooled("mean_tokens"))
    app = make_app(tmp_path, FAKE_EMBEDDER)
    async with running(app) as client:
        serve_instead(app, on_torch(folder))
        answer = (await ask(client, source=TEXTS[0], texts=list(TEXTS))).json()
    model = library(folder)
    expected = model.similarity(model.encode([TEXTS[0]]), model.encode(list(TEXTS)))[0]
    np.testing.assert_allclose(answer["scores"], expected.numpy(), atol=1e-4)


async def test_a_text_on_which_the_engine_fails_is_named_as_the_body_has_it(tmp_path: Path) -> None:
    poison = 'fake = { fail_on = "poison" }\n'
    async with serving(tmp_path, FAKE_EMBEDDER + poison) as client:
        for body, place in [
            ({"source": "poison", "texts": ["a", "b"]}, "source"),
            ({"source": "a", "texts": ["b", "poison"]}, "texts[1]"),
        ]:
            failed = await ask(client, **body)
            assert check_problem(failed, 500, "inference_failed")["detail"].endswith(f" {place}.")
        failed = await client.post("/v1/embeddings", json={"model": "vectors", "input": ["poison"]})
        assert failed.json()["error"]["message"].endswith(" input[0].")
