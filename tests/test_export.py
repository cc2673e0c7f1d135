"""`app models export`: what it writes is the same model, and what it can't write it says."""

import json
from pathlib import Path, PosixPath
from typing import Any, NoReturn

import numpy as np
import pytest
from commands import run
from libraries import cross_encoder, library
from tiny import PAIRS, alone, bert, edit
from tiny import TEXTS as TINY
from tiny_embedders import dense, embedder, on_torch, pooled, save_encoder, write

import app.models.export as export_module
from app.engines.base import Classifier, Task
from app.errors import StartupError
from app.models.catalog import Catalog, Limits, ModelSpec, read_catalog
from app.models.export import export
from app.models.loading import ModelLoader
from app.models.sources import Sources
from app.settings import PACKAGED_MODELS_FILE

TEXTS = (
    "A wonderful film, moving and beautifully played.",
    "It broke after a week and nobody answers my mails.",
    "ok",
    "Longer than the window. " * 200,
)


def service_scores(catalog: Catalog, sources: Sources) -> np.ndarray:
    spec = catalog.get("sentiment")
    assert spec is not None
    loader = ModelLoader(sources, folder=catalog.folder, device="cpu", threads=1)
    engine = loader(spec.model_copy(update={"engine": "torch"})).engine
    assert isinstance(engine, Classifier)
    return engine.classify(engine.encode(TEXTS))


def plain_scores(folder: Path) -> np.ndarray:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = tokenizer(list(TEXTS), padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        return np.asarray(model(**inputs).logits.softmax(-1))


def test_the_exported_folder_gives_the_service_s_scores_in_plain_transformers(
    tmp_path: Path,
) -> None:
    catalog, sources = read_catalog(PACKAGED_MODELS_FILE), Sources(tmp_path)
    folder = tmp_path / "new" / "exported"
    export(catalog, "sentiment", folder, sources=sources, threads=1)
    assert np.abs(plain_scores(folder) - service_scores(catalog, sources)).max() <= 1e-5
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "NEGATIVE", "1": "POSITIVE"}
    assert config["dtype"] == "float32"
    names = {file.name for file in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["exported"]


def test_an_exported_model_is_a_source_that_the_service_loads(tmp_path: Path) -> None:
    sources = Sources(tmp_path)
    packaged = read_catalog(PACKAGED_MODELS_FILE)
    folder = tmp_path / "exported"
    folder.mkdir()
    export(packaged, "sentiment", folder, sources=sources, threads=1)
    spec = ModelSpec(name="sentiment", source=f"file:{folder}", engine="torch")
    again = service_scores(Catalog([spec]), sources)
    assert np.abs(again - service_scores(packaged, sources)).max() <= 1e-6


SETTINGS: dict[str, Any] = {
    "prompts": {"query": "the film : ", "document": "dog "},
    "default_prompt_name": "document",
    "truncate_dim": 6,
    "similarity_fn_name": "dot",
}


def test_an_embedder_is_exported_with_its_modules_and_settings(tmp_path: Path) -> None:
    kind, config = pooled("cls_token", "mean_tokens")
    modules = ((kind, config | {"include_prompt": False}), dense(8, 64))
    source = embedder(save_encoder(tmp_path / "encoder"), tmp_path / "source", *modules)
    write(source / "config_sentence_transformers.json", SETTINGS)
    write(source / "sentence_roberta_config.json", {"max_seq_length": 30, "do_lower_case": True})
    spec = ModelSpec(name="vectors", task=Task.EMBEDDING, source=f"file:{source}",
                     limits=Limits(max_tokens=20))  # fmt: skip
    folder, sources = tmp_path / "exported", Sources(tmp_path)
    export(Catalog([spec]), "vectors", folder, sources=sources, threads=1)
    original, exported = on_torch(source, limit=20), on_torch(folder)
    texts = [*TINY, "a good film and a very long cat . " * 10]
    for prompt in SETTINGS["prompts"].values():
        rows = [alone(engine, texts, prompt) for engine in (original, exported)]
        np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)
    assert exported.vector_rules == original.vector_rules
    assert exported.max_tokens == 20
    expert = library(folder)
    shaped = [exported.vector_rules.shaped(row) for row in alone(exported, texts, "the film : ")]
    np.testing.assert_allclose(expert.encode_query(texts), shaped, atol=1e-4)
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_dir()} == {0o755}
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*.json")} == {0o644}


def test_an_embedder_with_modules_alone_is_exported_too(tmp_path: Path) -> None:
    encoder = save_encoder(tmp_path / "encoder")
    source = embedder(encoder, tmp_path / "source", pooled("lasttoken"), dense(8))
    spec = ModelSpec(name="vectors", task=Task.EMBEDDING, source=f"file:{source}")
    folder, sources = tmp_path / "exported", Sources(tmp_path)
    export(Catalog([spec]), "vectors", folder, sources=sources, threads=1)
    rows = [alone(on_torch(place), TINY) for place in (source, folder)]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)
    assert not (folder / "config_sentence_transformers.json").exists()


@pytest.mark.parametrize("activation", ["linear.Identity", "activation.Sigmoid"])
def test_a_reranker_is_exported_with_its_activation(tmp_path: Path, activation: str) -> None:
    made = cross_encoder(bert(tmp_path / "made", num_labels=1))
    made.save_pretrained(str(tmp_path / "source"))
    edit(
        tmp_path / "source" / "config_sentence_transformers.json",
        activation_fn=f"torch.nn.modules.{activation}",
    )
    spec = ModelSpec(name="ranker", task=Task.RANKING, source=f"file:{tmp_path / 'source'}")
    export(Catalog([spec]), "ranker", tmp_path / "out", sources=Sources(tmp_path), threads=1)
    before = cross_encoder(tmp_path / "source").predict(list(PAIRS))
    after = cross_encoder(tmp_path / "out").predict(list(PAIRS))
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [("pooling", ["cls"]), ("normalize", False), ("prompts", {"query": "q "}), ("dimensions", 8)],
)
def test_what_only_the_catalogue_says_of_an_embedder_can_t_be_exported(
    tmp_path: Path, field: str, value: object
) -> None:
    entry = {"name": "vectors", "task": "embedding", "source": "file:none", field: value}
    catalog = Catalog([ModelSpec.model_validate(entry)])
    with pytest.raises(StartupError, match=f"'vectors': {field} can't be exported"):
        export(catalog, "vectors", tmp_path / "x", sources=Sources(tmp_path), threads=1)
    assert not (tmp_path / "x").exists()


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    catalog = read_catalog(PACKAGED_MODELS_FILE)
    (tmp_path / "mine").write_text("", encoding="utf-8")
    with pytest.raises(StartupError, match="is not empty"):
        export(catalog, "sentiment", tmp_path, sources=Sources(tmp_path), threads=1)
    with pytest.raises(StartupError, match="is a file"):
        export(catalog, "sentiment", tmp_path / "mine", sources=Sources(tmp_path), threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_has_no_weights_can_t_be_exported(tmp_path: Path) -> None:
    catalog = Catalog([ModelSpec(name="dummy", engine="fake")])
    with pytest.raises(StartupError, match="'dummy' has no source"):
        export(catalog, "dummy", tmp_path, sources=Sources(tmp_path), threads=1)
    with pytest.raises(StartupError, match="no model 'other' in the catalogue; it has dummy"):
        export(catalog, "other", tmp_path, sources=Sources(tmp_path), threads=1)


def test_a_folder_that_can_t_be_made_is_one_readable_line(tmp_path: Path) -> None:
    catalog = read_catalog(PACKAGED_MODELS_FILE)
    (tmp_path / "file").write_text("", encoding="utf-8")
    folder = tmp_path / "file" / "inside"
    with pytest.raises(StartupError, match=r"inside: (can't be (read|written)|is a file)"):
        export(catalog, "sentiment", folder, sources=Sources(tmp_path), threads=1)


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    ended = run(tmp_path, "models", "export", "nobody", "folder")
    assert ended.returncode == 1
    assert ended.stderr == (
        "ml-api: error: there is no model 'nobody' in the catalogue;"
        " it has sentiment, minilm, smollm2, ner\n"
    )


class Unreadable(PosixPath):
    """A folder that even root may not look into, as on some network drives."""

    def iterdir(self) -> NoReturn:
        raise PermissionError(13, "Permission denied")


def test_a_folder_that_can_t_be_looked_into_is_one_readable_line(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="can't be read: Permission denied"):
        export_module.refuse_used(Unreadable(tmp_path))
