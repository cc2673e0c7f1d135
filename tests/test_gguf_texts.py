"""GGUF embedders and rerankers through the app and its commands."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import commands
import numpy as np
import pytest
from httpx2 import AsyncClient
from serving import FAKE, serving
from sharing import counted, sharing
from smollm import gguf
from tiny_gguf import write_embedder, write_ranker

from app.doctor.guessing import guess
from app.models.bake import bake
from app.models.catalog import read_catalog
from app.models.sources import Sources

MODELS = """
[[models]]
name = "small"
task = "embedding"
source = "file:embedder.gguf"
prompts = { query = "good " }

[[models]]
name = "ranker"
task = "text-ranking"
source = "file:ranker"                  # with one .gguf file
engine = "llama_cpp"
device = "cpu"
required = true
"""
DOCUMENTS = ["the cat is long", "a dog", "very good film"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("gguf")
    write_embedder(made / "embedder.gguf")
    (made / "ranker").mkdir()
    write_ranker(made / "ranker" / "qwen.gguf")
    (made / "models.toml").write_text(MODELS, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
async def client(folder: Path) -> AsyncIterator[AsyncClient]:
    async with serving(folder, MODELS) as client:
        yield client


async def test_models_say_which_engine_and_device_serve(client: AsyncClient) -> None:
    listed = (await client.get("/models")).json()["models"]
    assert [(m["name"], m["state"], m["engine"], m["device"]) for m in listed] == [
        ("small", "ready", "llama_cpp", "cpu"),
        ("ranker", "ready", "llama_cpp", "cpu"),
    ]
    assert (await client.get("/ready")).status_code == 200


async def test_embeddings_are_the_same_on_all_routes(client: AsyncClient) -> None:
    mine = (await client.post("/embed", json={"texts": DOCUMENTS})).json()
    body = {"model": "small", "input": DOCUMENTS}
    openai = (await client.post("/v1/embeddings", json=body)).json()
    assert mine["dimensions"] == 32
    vectors = np.array(mine["embeddings"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    rows = [row["embedding"] for row in openai["data"]]
    np.testing.assert_allclose(rows, vectors, rtol=0, atol=1e-5)
    assert openai["usage"]["prompt_tokens"] == 6 + 4 + 5, "with [CLS] and [SEP]"
    body = {"source": DOCUMENTS[0], "texts": DOCUMENTS}
    similar = (await client.post("/similarity", json=body)).json()["scores"]
    np.testing.assert_allclose(similar, vectors @ vectors[0], rtol=0, atol=1e-5)
    short = {"texts": ["film"], "prompt_name": "query", "dimensions": 8}
    cut = (await client.post("/embed", json=short)).json()["embeddings"][0]
    whole = (await client.post("/embed", json={"texts": ["good film"]})).json()["embeddings"][0]
    np.testing.assert_allclose(cut, whole[:8] / np.linalg.norm(whole[:8]), rtol=0, atol=1e-5)


async def test_long_texts_are_cut_and_say_so_and_those_without_tokens_are_refused(
    client: AsyncClient,
) -> None:
    body = {"texts": ["good film", "good film . " * 40]}
    assert (await client.post("/embed", json=body)).json()["truncated"] == [1]
    blank = await client.post("/embed", json={"texts": ["  "]})
    assert (blank.status_code, blank.json()["code"]) == (422, "text_without_tokens")


async def test_rankings_are_the_same_in_all_dialects(client: AsyncClient) -> None:
    body = {"model": "ranker", "query": "good film", "documents": DOCUMENTS}
    answers = [
        (await client.post(path, json=body)).json()
        for path in ("/rerank", "/v1/rerank", "/v2/rerank")
    ]
    scores = [[(r["index"], r["relevance_score"]) for r in a["results"]] for a in answers]
    assert sorted(index for index, _ in scores[0]) == [0, 1, 2]
    assert scores[0] == sorted(scores[0], key=lambda row: -row[1])
    for others in scores[1:]:
        assert [i for i, _ in others] == [i for i, _ in scores[0]]
        np.testing.assert_allclose([s for _, s in others], [s for _, s in scores[0]], atol=1e-4)
    long = await client.post("/rerank", json=body | {"documents": ["a", "very good film . " * 40]})
    assert long.json()["truncated"] == [1]


def test_a_file_says_what_it_is_for(folder: Path) -> None:
    places = (folder / "embedder.gguf", folder / "ranker" / "qwen.gguf", folder / "ranker", gguf())
    tasks = [guess(place).specs[0].task for place in places]
    assert tasks == ["embedding", "text-ranking", "text-ranking", "chat"]


@pytest.mark.parametrize("name", ["embedder.gguf", "ranker/qwen.gguf"])
def test_check_loads_and_calls_it(folder: Path, name: str) -> None:
    done = commands.run(folder, "models", "check", name, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["engine"], report["device"]) == ("llama_cpp", "cpu")
    assert report["answer"]


def test_baked_files_are_copied(folder: Path, tmp_path: Path) -> None:
    catalog = read_catalog(folder / "models.toml")
    bake(catalog, tmp_path / "baked", sources=Sources(tmp_path), cores=1)
    baked = read_catalog(tmp_path / "baked" / "models.toml")
    assert [spec.source for spec in baked.specs] == [
        "file:small/embedder.gguf",
        "file:ranker/qwen.gguf",
    ]
    assert all(
        (tmp_path / "baked" / str(s.source).removeprefix("file:")).is_file() for s in baked.specs
    )


async def test_front_ends_load_what_cant_be_shared_themselves(folder: Path, tmp_path: Path) -> None:
    """Of a folder only who loads it finds out what runs it: the process that they share, first."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "model.gguf").symlink_to(folder / "embedder.gguf")
    own = f'name = "own"\ntask = "embedding"\nsource = "file:{tmp_path}/own"'
    async with sharing(tmp_path, f"{FAKE}\n[[models]]\n{own}\nrequired = true") as pair:
        assert [e.state for e in pair.host.registry.entries] == ["ready", "unloaded"]
        assert [e.state_now for e in pair.front.registry.entries] == ["ready", "ready"]
        answer = await pair.client.post("/embed", json={"texts": ["the cat"]})
        assert answer.status_code == 200
        assert counted(pair.front, "wait_seconds_count", model="own") == 1
        # The least of all processes is what /metrics says.
        ready = pair.host.metrics.registry.get_sample_value("mlapi_model_ready", {"model": "own"})
        assert ready is None
