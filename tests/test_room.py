"""An embedder whose prompts leave no room for a text isn't served, however it is loaded."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import batched
from test_openvino import prepare_here
from tiny_embedders import SETTINGS, embedder, pooled, save_encoder, write

from app.engines.base import EmbeddingOptions, EngineRequest, OpenVinoOptions, Task
from app.engines.fake import FakeEmbedder, FakeOptions
from app.engines.room import LEAST_ROOM, check_embedder, room_behind
from app.engines.rows import RowsRefusedError
from app.engines.torch import load as load_torch
from app.engines.vector_rules import Similarity, VectorRules
from app.errors import EngineError
from app.features.jobs.embedders import LoadedEmbedder
from app.models.catalog import Limits, ModelSpec
from app.models.entries import Served
from app.models.loading import ModelLoader
from app.models.sources import Sources

TEN = "good film was bad cat dog the a it not "


def request_for(**fields: Any) -> EngineRequest:
    given: dict[str, Any] = {"name": "vectors", "task": Task.EMBEDDING, "engine": "fake"}
    return EngineRequest(**given | fields)


def fake(window: int, **options: Any) -> FakeEmbedder:
    wanted = EmbeddingOptions(**options)
    return FakeEmbedder(request_for(max_tokens=window, embedding=wanted), FakeOptions())


def load(folder: Path, **fields: Any) -> None:
    """Load an entry as the service does."""
    given: dict[str, Any] = {"name": "vectors", "task": Task.EMBEDDING, "engine": "fake"}
    loader = ModelLoader(Sources(folder / "cache"), folder=folder, device="cpu", threads=1)
    loader(ModelSpec(**given | fields))


@pytest.mark.parametrize("name", ["query", "document"])
def test_a_fake_without_room_behind_a_prompt_is_refused(tmp_path: Path, name: str) -> None:
    said = rf"the catalogue's prompts: '{name}' has 9 tokens, and the model takes 12; shorten it"
    with pytest.raises(EngineError, match=said):
        load(tmp_path, prompts={name: "passage: "}, limits=Limits(max_tokens=12))
    load(tmp_path, prompts={name: "passage: "}, limits=Limits(max_tokens=9 + LEAST_ROOM))
    load(tmp_path, prompts={"other": "passage: "}, limits=Limits(max_tokens=9))


def test_a_fake_has_no_more_dimensions_than_it_has(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="dimensions are 1000, and the model has 384; ask for no"):
        load(tmp_path, dimensions=1000)
    load(tmp_path, dimensions=384)


def test_a_smaller_limit_than_at_the_conversion_is_checked_too(tmp_path: Path) -> None:
    folder, cache = save_encoder(tmp_path / "model"), tmp_path / "cache"
    prompts = {"document": TEN}
    options = OpenVinoOptions(cache=cache, cores=1, calls=1, streams=1)
    loader = ModelLoader(Sources(cache), folder=tmp_path, device="cpu", threads=1, openvino=options)
    entry = {"name": "tiny", "task": Task.EMBEDDING, "engine": "openvino", "prompts": prompts}
    spec = ModelSpec(**entry, source=f"file:{folder}", limits=Limits(max_tokens=12))
    request, _ = loader.request(spec)
    prepare_here(replace(request, max_tokens=None))
    with pytest.raises(EngineError, match=r"model: the catalogue's prompts: 'document' has 10 tok"):
        loader(spec)


def test_a_prompt_is_blamed_on_where_it_stands(tmp_path: Path) -> None:
    folder = embedder(save_encoder(tmp_path / "e"), tmp_path / "model", pooled("mean_tokens"))
    write(folder / SETTINGS, {"prompts": {"topic": TEN}, "default_prompt_name": "topic"})
    request = request_for(folder=folder, max_tokens=15)
    with pytest.raises(EngineError, match=rf"{SETTINGS}: prompts: 'topic' has 10 tokens, and the"):
        load_torch(request)
    (folder / SETTINGS).unlink()  # as of a baked model
    engine = fake(12, prompts={"query": "a prompt "})
    with pytest.raises(EngineError, match=r"model: prompts: 'query' has 9 tokens"):
        check_embedder(engine, request)


def test_a_document_is_never_cut_into_passages_without_end() -> None:
    for window in (5, 9):
        model = batched(fake(window, prompts={"document": "123456789"}))
        with pytest.raises(EngineError, match="'vectors': its prompt for documents leaves no room"):
            LoadedEmbedder("vectors", Served(model=model, version="1"))
        model.close(timeout_s=5)
    assert room_behind(fake(10), "123") == 7


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-25])
def test_what_float32_can_t_scale_is_refused_cut_or_compared(size: float) -> None:
    vector = np.full(8, size, np.float32)
    whole = np.concatenate([vector, np.ones(8, np.float32)])
    for dimensions in (1, 8):
        for rules in (VectorRules(), VectorRules(is_unit=False)):
            with pytest.raises(RowsRefusedError, match=f"length in its first {dimensions} dim"):
                rules.shaped(whole, dimensions)
    with pytest.raises(RowsRefusedError, match="no length"):
        VectorRules().comparable(vector)
    assert VectorRules(similarity=Similarity.DOT).comparable(vector) is vector
    assert np.isfinite(VectorRules().shaped(whole, 9)).all()
