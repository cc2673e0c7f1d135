"""Stored vectors: made with the prompt for documents, and found by the settings that made them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from libraries import library
from serving import FAKE_EMBEDDER, make_app, running, serve_instead
from sqlalchemy.orm import Session
from tiny import TEXTS
from tiny_embedders import (
    ALONE,
    NORMALIZE,
    SETTINGS,
    both,
    dense,
    embedder,
    engines,
    on_torch,
    pooled,
    write,
)

from app.engines.base import Embedder, EmbeddingOptions, FloatArray
from app.engines.torch import load as load_torch
from app.engines.torch_embedder import TorchEmbedder
from app.features.documents.passages import NewPassage, PassageRepository
from app.features.documents.repository import DocumentRepository, NewDocument
from app.features.jobs.embedders import LoadedEmbedder
from app.models.catalog import read_catalog
from app.models.entries import Served
from app.models.loading import ModelLoader
from app.models.sources import Sources
from app.services.embeddings import space_of
from app.settings import PACKAGED_MODELS_FILE

PROMPTS = {"query": "the film : ", "document": "a dog , ", "topic": "very "}
SHORT = TEXTS[:4]
QUERY = "the dog was not bad"


async def store(app: FastAPI, vectors: dict[str, FloatArray], space: str) -> None:
    """Store texts with a vector each in a space."""

    def work(session: Session) -> None:
        repository = DocumentRepository(session)
        new = [NewDocument(id=str(n), text=text) for n, text in enumerate(vectors)]
        keys = repository.upsert_many(0, new, request_id="r", now=datetime.now(UTC))
        made = []
        for key, source in repository.texts(keys).items():
            vector = vectors[source.text]
            passage = NewPassage(start=0, end=len(source.text), vector=vector)
            made.append((source, [passage]))
            assert key == source.key
        PassageRepository(session).replace_many(made, space)

    await app.state.runtime.require_database().run(work)


async def scores(client: AsyncClient) -> list[float]:
    """Return what `/search` says of each text, in their order."""
    answer = await client.post("/search", json={"query": QUERY})
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [r["score"] for r in results] == sorted((r["score"] for r in results), reverse=True)
    by_text = {result["text"]: result["score"] for result in results}
    return [by_text[text] for text in SHORT if text in by_text]


async def embed_and_search(tmp_path: Path, engine: Embedder) -> list[float]:
    """Embed texts as a job does, store and find them."""
    app = make_app(tmp_path, FAKE_EMBEDDER)
    async with running(app) as client:
        model = serve_instead(app, engine)
        job = LoadedEmbedder("vectors", Served(model=model, version="test"))
        rows = await job.embed(SHORT)
        vectors = {t: r for t, r in zip(SHORT, rows, strict=True) if isinstance(r, np.ndarray)}
        await store(app, vectors, job.space)
        return await scores(client)


@pytest.mark.parametrize("similarity", [None, "cosine", "dot", "euclidean", "manhattan"])
@pytest.mark.parametrize("settings", [{}, {"truncate_dim": 8}])
async def test_search_compares_queries_with_documents_as_the_library_does(
    encoder: Path, tmp_path: Path, similarity: str | None, settings: dict[str, Any]
) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("cls_token"), dense(24))
    config = {"prompts": PROMPTS, "default_prompt_name": "topic", "similarity_fn_name": similarity}
    write(folder / SETTINGS, config | settings)
    expert = library(folder)
    expected = expert.similarity(expert.encode_query(QUERY), expert.encode_document(list(SHORT)))
    for engine, most in both(folder):
        found = await embed_and_search(tmp_path, engine)
        size = max(1.0, float(expected.abs().max()))
        np.testing.assert_allclose(found, expected[0], atol=3 * most * size)


async def test_distances_suit_a_model_whose_vectors_have_length_1(
    encoder: Path, tmp_path: Path
) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("cls_token"), NORMALIZE)
    write(folder / SETTINGS, {"similarity_fn_name": "euclidean"})
    expert = library(folder)
    expected = expert.similarity(expert.encode_query(QUERY), expert.encode_document(list(SHORT)))
    found = await embed_and_search(tmp_path, on_torch(folder))
    np.testing.assert_allclose(found, expected[0], atol=ALONE)


async def test_a_passage_leaves_room_for_the_prompt(encoder: Path, tmp_path: Path) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("mean_tokens"))
    write(folder / SETTINGS, {"prompts": PROMPTS})
    engine = on_torch(folder)
    app = make_app(tmp_path, FAKE_EMBEDDER)
    async with running(app):
        job = LoadedEmbedder("vectors", Served(model=serve_instead(app, engine), version="test"))
        text = "good film was not bad and " * 40
        spans = job.spans(text)
    passages = [text[span.start : span.end] for span in spans]
    assert not any(item.is_truncated for item in engine.encode(passages, PROMPTS["document"]))
    assert any(item.is_truncated for item in engine.encode(passages, "good film was " * 2))


def edition(folder: Path, **options: Any) -> str:
    """Return the space of a model's vectors on both engines."""
    spaces = {
        space_of("mine", "0b7f9e12c0de", engine.vector_rules)
        for engine in engines(folder, EmbeddingOptions(**options))
    }
    (space,) = spaces
    return space


# What vectors were stored under before there were editions: model, "@", version of the files.
AS_EVER = "mine@0b7f9e12c0de"
MEAN = (pooled("mean_tokens"), NORMALIZE)


@pytest.mark.parametrize(
    ("modules", "settings"),
    [
        (MEAN, {}),
        (MEAN[:1], {}),
        (MEAN, {"similarity_fn_name": "dot"}),
        (MEAN, {"prompts": {"query": "q ", "topic": "t "}, "default_prompt_name": "topic"}),
        (MEAN, {"truncate_dim": 99}),
    ],
)
def test_unchanged_settings_keep_the_name_of_what_is_stored(
    encoder: Path, tmp_path: Path, modules: Any, settings: dict[str, Any]
) -> None:
    folder = embedder(encoder, tmp_path / "model", *modules)
    write(folder / SETTINGS, settings)
    write(folder / "sentence_bert_config.json", {"do_lower_case": True})  # as its tokeniser does
    assert edition(folder) == AS_EVER


def test_a_plain_folder_keeps_the_name_of_what_is_stored(encoder: Path) -> None:
    assert edition(encoder) == AS_EVER
    assert edition(encoder, prompts={"query": "q "}) == AS_EVER


def test_the_packaged_embedder_keeps_the_name_of_what_is_stored(tmp_path: Path) -> None:
    catalog = read_catalog(PACKAGED_MODELS_FILE)
    loader = ModelLoader(Sources(tmp_path), folder=catalog.folder, device="cpu", threads=1)
    spec = catalog.get("minilm")
    assert spec is not None
    request, version = loader.request(spec)
    engine = load_torch(request)
    assert isinstance(engine, TorchEmbedder)
    assert space_of("minilm", version, engine.vector_rules) == "minilm@0.1.0"


async def test_what_was_stored_before_there_were_editions_is_found(
    encoder: Path, tmp_path: Path
) -> None:
    engine = on_torch(encoder)
    app = make_app(tmp_path, FAKE_EMBEDDER)
    async with running(app) as client:
        serve_instead(app, engine)
        vectors = engine.embed(engine.encode(SHORT))
        await store(app, dict(zip(SHORT, vectors, strict=True)), "vectors@test")
        assert len(await scores(client)) == len(SHORT)


# They must never change: stored vectors would be lost to search.
EDITIONS = {
    "cls": "bf1b2823",
    "dense": "33e01487",
    "prompt": "284eb1a7",
    "prompt, not pooled": "1ae07855",
    "dimensions": "4ee7f654",
    "fewer": "432092eb",
    "length": "bd9b3a3e",
}


def test_other_settings_have_another_name_each_and_the_same_one_always(
    encoder: Path, tmp_path: Path
) -> None:
    def name(*modules: Any, settings: Any = None, **options: Any) -> str:
        folder = embedder(encoder, tmp_path / f"model{len(list(tmp_path.iterdir()))}", *modules)
        write(folder / SETTINGS, settings or {})
        return on_torch(folder, **options).vector_rules.edition

    cls = pooled("cls_token")
    prompt = {"prompts": {"document": "d "}}
    left_out = ("Pooling", MEAN[0][1] | {"include_prompt": False})
    found = {
        "cls": name(cls, NORMALIZE),
        "dense": name(MEAN[0], dense(), NORMALIZE),
        "prompt": name(*MEAN, settings=prompt),
        "prompt, not pooled": name(left_out, NORMALIZE, settings=prompt),
        "dimensions": name(*MEAN, settings={"truncate_dim": 8}),
        "fewer": name(*MEAN, dimensions=4),
        "length": name(MEAN[0], settings={"similarity_fn_name": "dot"}),
    }
    assert name(*MEAN, prompts={"document": "d "}) == found["prompt"]
    assert name(*MEAN, dimensions=8) == found["dimensions"]
    assert found == EDITIONS
