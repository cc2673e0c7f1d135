"""Tiny seeded embedders with any modules, saved as folders, and engines that serve them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from converted import CONVERTED
from filelock import FileLock
from safetensors.torch import save_file
from tiny import SIZES, TEXTS, seeded, word_tokenizer

from app.engines.base import Embedder, EmbeddingOptions, EngineRequest, OpenVinoOptions, Task
from app.engines.openvino.converted import folder_of, read
from app.engines.openvino.engine import OpenVinoEmbedder
from app.engines.openvino.preparation import compile_engine, convert_best
from app.engines.openvino.processor import Processor
from app.engines.torch import load as load_torch
from app.engines.torch_embedder import TorchEmbedder

FLAGS = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens",
         "lasttoken")  # fmt: skip
ALONE = 2e-3
BF16 = 2e-2
# The folder's name has a digest of all files: another model is never taken for this one.
KEPT = CONVERTED / "tiny"
SETTINGS = "config_sentence_transformers.json"
TYPES = "sentence_transformers.models"
NORMALIZE: tuple[str, dict[str, Any]] = ("Normalize", {})


def save_encoder(folder: Path, **fields: Any) -> Path:
    """Write an encoder as transformers does; `fields` are the tokeniser's."""
    sizes = {name: value for name, value in SIZES.items() if name != "num_labels"}
    seeded("BertModel", "BertConfig", **sizes).save_pretrained(folder)
    word_tokenizer(**({"model_max_length": 40} | fields)).save_pretrained(folder)
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
            save_file(weights, folder / name / "model.safetensors")
    write(folder / "modules.json", listed)
    return folder


def pooled(*modes: str) -> tuple[str, dict[str, Any]]:
    flags = {f"pooling_mode_{flag}": flag in modes for flag in FLAGS}
    return "Pooling", {"word_embedding_dimension": 32, **flags}


def dense(size: int = 16, width: int = 32, **more: Any) -> tuple[str, dict[str, Any]]:
    activation = "torch.nn.modules.activation.Tanh"
    fields = {"in_features": width, "out_features": size, "activation_function": activation}
    return "Dense", fields | more


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


def engines(
    folder: Path, options: EmbeddingOptions | None = None, *, cache: Path = KEPT
) -> tuple[TorchEmbedder, OpenVinoEmbedder]:
    """Load a folder on torch and, converted once a machine, on OpenVINO."""
    openvino = OpenVinoOptions(cache=cache, cores=1, calls=1, streams=1)
    request = EngineRequest(
        name="tiny", task=Task.EMBEDDING, engine="auto", folder=folder, device="cpu",
        threads=1,
        openvino=openvino, embedding=options or EmbeddingOptions(),
    )  # fmt: skip
    on_torch = load_torch(request)
    assert isinstance(on_torch, TorchEmbedder)
    # Without the comparison of a start: the tests hold both engines against the library.
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".lock"):
        converted = read(folder_of(request)) or convert_best(request, on_torch, folder_of(request))
    on_openvino = compile_engine(request, converted, Processor(openvino))
    assert isinstance(on_openvino, OpenVinoEmbedder)
    return on_torch, on_openvino


def on_torch(folder: Path, *, limit: int | None = None, **options: Any) -> TorchEmbedder:
    """Load a folder on torch alone, without a conversion."""
    request = EngineRequest(
        name="tiny", task=Task.EMBEDDING, engine="torch", folder=folder, device="cpu",
        embedding=EmbeddingOptions(**options), max_tokens=limit,
    )  # fmt: skip
    engine = load_torch(request)
    assert isinstance(engine, TorchEmbedder)
    return engine


def both(folder: Path, options: EmbeddingOptions | None = None) -> list[tuple[Embedder, float]]:
    """Return the two engines, each with how far its numbers may be off."""
    on_torch, on_openvino = engines(folder, options)
    return [(on_torch, ALONE), (on_openvino, BF16)]


def assert_like(engine: Embedder, expected: Any, *, most: float) -> None:
    items = engine.encode(TEXTS)
    together = engine.embed(items)
    alone = np.concatenate([engine.embed([item]) for item in items])
    size = max(1.0, float(np.abs(expected).max()))
    assert together.shape == expected.shape == (len(TEXTS), engine.dimensions)
    assert np.abs(together - expected).max() <= most * size
    assert np.abs(alone - expected).max() <= most * size
