"""Embedders are read as sentence-transformers reads them, on both engines, or refused by name."""

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import SIZES, TEXTS, seeded, word_tokenizer

from app.engines import preparation
from app.engines.base import Embedder, EngineRequest, OpenVinoOptions, Task
from app.engines.openvino import OpenVinoEmbedder
from app.engines.torch import TorchEmbedder
from app.engines.torch import load as load_torch
from app.errors import EngineError

FLAGS = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens",
         "lasttoken")  # fmt: skip
ALONE = 2e-3
BF16 = 2e-2


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an encoder as transformers saves it; copy before a change."""
    folder = tmp_path_factory.mktemp("encoder") / "model"
    fields = {name: value for name, value in SIZES.items() if name != "num_labels"}
    seeded("BertModel", "BertConfig", **fields).save_pretrained(folder)
    word_tokenizer(model_max_length=40).save_pretrained(folder)
    return folder


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def embedder(encoder: Path, folder: Path, *modules: tuple[str, dict[str, Any]]) -> Path:
    """Put modules behind an encoder, each with its configuration and seeded weights."""
    shutil.copytree(encoder, folder)
    listed = [{"idx": 0, "name": "0", "path": "", "type": f"{TYPES}.Transformer"}]
    torch.manual_seed(11)
    for place, (kind, config) in enumerate(modules, start=1):
        name = f"{place}_{kind}"
        listed.append({"idx": place, "name": str(place), "path": name, "type": f"{TYPES}.{kind}"})
        write(folder / name / "config.json", config)
        weights: dict[str, Any] = {}
        if kind == "Dense":
            weights = {
                "linear.weight": torch.randn(config["out_features"], config["in_features"]) / 6
            }
            if config.get("bias", True):
                weights["linear.bias"] = torch.randn(config["out_features"])
        if kind == "LayerNorm":
            size = config["dimension"]
            weights = {"norm.weight": torch.rand(size) + 0.5, "norm.bias": torch.randn(size)}
        if weights:
            from safetensors.torch import save_file

            save_file(weights, folder / name / "model.safetensors")
    write(folder / "modules.json", listed)
    return folder


TYPES = "sentence_transformers.models"


def pooled(*modes: str) -> tuple[str, dict[str, Any]]:
    flags = {f"pooling_mode_{flag}": flag in modes for flag in FLAGS}
    return "Pooling", {"word_embedding_dimension": 32, **flags}


def dense(size: int = 16, width: int = 32, **more: Any) -> tuple[str, dict[str, Any]]:
    activation = "torch.nn.modules.activation.Tanh"
    fields = {"in_features": width, "out_features": size, "activation_function": activation}
    return "Dense", fields | more


NORMALIZE: tuple[str, dict[str, Any]] = ("Normalize", {})
KINDS: dict[str, Sequence[tuple[str, dict[str, Any]]]] = {
    **{flag: [pooled(flag), NORMALIZE] for flag in FLAGS},
    "mix": [pooled("cls_token", "lasttoken", "mean_tokens")],
    "mode by name": [("Pooling", {"embedding_dimension": 32, "pooling_mode": ["max", "cls"]})],
    "no flag is mean": [pooled()],
    "not normalised": [pooled("mean_tokens")],
    "dense": [pooled("mean_tokens"), dense(), NORMALIZE],
    "dense, plain": [
        pooled("cls_token"),
        dense(bias=False, activation_function="torch.nn.modules.linear.Identity"),
    ],
    "two dense": [
        pooled("mean_tokens"),
        dense(24, activation_function="torch.nn.modules.activation.GELU"),
        NORMALIZE,
        dense(8, 24),
    ],
    "layer norm": [pooled("mean_tokens"), ("LayerNorm", {"dimension": 32}), NORMALIZE],
}


def engines(folder: Path, cache: Path) -> tuple[TorchEmbedder, OpenVinoEmbedder]:
    options = OpenVinoOptions(cache=cache, cores=1, calls=1, streams=1)
    request = EngineRequest(
        name="tiny", task=Task.EMBEDDING, engine="auto", folder=folder, device="cpu",
        threads=1, openvino=options,
    )  # fmt: skip
    on_torch = load_torch(request)
    prepare = partial(preparation.prepare, load_reference=preparation.load_reference)
    on_openvino = preparation.load(request, prepare=prepare)
    assert isinstance(on_torch, TorchEmbedder)
    assert isinstance(on_openvino, OpenVinoEmbedder)
    return on_torch, on_openvino


def assert_like(engine: Embedder, expected: Any, *, most: float) -> None:
    items = engine.encode(TEXTS)
    together = engine.embed(items)
    alone = np.concatenate([engine.embed([item]) for item in items])
    size = max(1.0, float(np.abs(expected).max()))
    assert together.shape == expected.shape == (len(TEXTS), engine.dimensions)
    assert np.abs(together - expected).max() <= most * size
    assert np.abs(alone - expected).max() <= most * size


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_folder_gives_exactly_its_modules(encoder: Path, tmp_path: Path, kind: Any) -> None:
    folder = embedder(encoder, tmp_path / "model", *kind)
    library = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    expected = library.encode(list(TEXTS), batch_size=2)
    assert np.ptp(expected, axis=0).max() > 0.1, "the texts have to differ for this to mean much"
    on_torch, on_openvino = engines(folder, tmp_path / "cache")
    assert_like(on_torch, expected, most=ALONE)
    assert_like(on_openvino, expected, most=BF16)


def test_what_the_library_saves_today_is_read(encoder: Path, tmp_path: Path) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("cls_token"), dense(), NORMALIZE)
    library = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    library.save(str(tmp_path / "again"))
    on_torch, _ = engines(tmp_path / "again", tmp_path / "cache")
    assert_like(on_torch, library.encode(list(TEXTS)), most=ALONE)


def test_texts_are_lowered_and_cut_as_the_library_does(encoder: Path, tmp_path: Path) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("mean_tokens"))
    tokenizer = folder / "tokenizer.json"
    cased = json.loads(tokenizer.read_text()) | {"normalizer": None}
    tokenizer.write_text(json.dumps(cased))
    upper = ["GOOD film", "The CAT is long . " * 20]
    found = {}
    for lowers in (True, False):
        write(folder / "sentence_bert_config.json", {"max_seq_length": 30, "do_lower_case": lowers})
        library = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        expected = library.encode(upper)
        for engine in engines(folder, tmp_path / "cache"):
            found[lowers] = engine.embed(engine.encode(upper))
            assert np.abs(found[lowers] - expected).max() <= BF16 * np.abs(expected).max()
            assert engine.max_tokens == 30
    assert np.abs(found[True] - found[False]).max() > 0.1


def test_a_plain_folder_is_mean_pooled_and_normalised(encoder: Path, tmp_path: Path) -> None:
    library = SentenceTransformer(str(encoder), device="cpu", local_files_only=True)
    expected = library.encode(list(TEXTS), normalize_embeddings=True)
    on_torch, on_openvino = engines(encoder, tmp_path / "cache")
    assert_like(on_torch, expected, most=ALONE)
    assert_like(on_openvino, expected, most=BF16)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config_sentence_transformers.json", {"default_prompt_name": "q", "prompts": {"q": "Q: "}},
         "config_sentence_transformers.json: default_prompt_name: 'q' is not done here; set it to"),
        ("config_sentence_transformers.json", {"truncate_dim": 8}, "truncate_dim: 8 is not done"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "dot"}, "compares by cosine"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "model_type: "),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task: "),
        ("1_Pooling/config.json", {"pooling_mode": "attention"}, "pooling_mode: 'attention'"),
        ("1_Pooling/config.json", {"embedding_dimension": 32, "heads": 2}, "config.json: heads: 2"),
        ("2_Dense/config.json", dense(activation_function="mine.Act")[1], "activation_function: "),
        ("2_Dense/config.json", dense(use_residual=True)[1], "use_residual: True"),
        ("2_Dense/config.json", dense(width=31)[1], "takes 31 dimensions, and is given 32"),
        ("2_Dense/config.json", dense(size=8)[1], "2_Dense/model.safetensors: the weights don't"),
        ("modules.json", [{"path": "", "type": "sentence_transformers.models.WordEmbeddings"}],
         "modules.json: type: 'sentence_transformers.models.WordEmbeddings' is not done here"),
        ("modules.json", [{"path": "", "type": "mine.Transformer"}], "type: 'mine.Transformer'"),
        ("modules.json", [{"path": "", "type": f"{TYPES}.Transformer"},
                          {"path": "1_Pooling", "type": f"{TYPES}.Normalize"}], "begins with"),
        ("modules.json", [{"path": "0_T", "type": f"{TYPES}.Transformer"},
                          {"path": "1_Pooling", "type": f"{TYPES}.Pooling"}], "lies in '0_T'"),
    ],
)  # fmt: skip
def test_what_is_not_done_is_refused_by_file_and_field(
    encoder: Path, tmp_path: Path, file: str, content: Any, said: str
) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("mean_tokens"), dense())
    write(folder / file, content)
    with pytest.raises(EngineError) as refused:
        engines(folder, tmp_path / "cache")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_weights_in_a_pickle_are_not_read(encoder: Path, tmp_path: Path) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("mean_tokens"), dense())
    weights = folder / "2_Dense" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(EngineError, match=r"2_Dense/model.safetensors: is missing: .* safetensors"):
        engines(folder, tmp_path / "cache")


def test_a_changed_module_makes_another_converted_model(encoder: Path, tmp_path: Path) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("cls_token"), NORMALIZE)
    first = engines(folder, tmp_path / "cache")[1]
    write(folder / "1_Pooling" / "config.json", pooled("max_tokens")[1])
    second = engines(folder, tmp_path / "cache")[1]
    items = first.encode(TEXTS)
    assert np.abs(first.embed(items) - second.embed(items)).max() > 0.1
