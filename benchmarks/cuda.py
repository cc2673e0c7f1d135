"""The torch engine on a GPU against the same weights in float32 on the CPU: agreement and speed.

Usage: PYTHONPATH=. python benchmarks/cuda.py MODEL_FOLDER TEXTS_FILE. Needs torch with CUDA,
transformers, peft and tokenizers; nothing else of the service is imported.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

from app.engines.base import Classifier, Embedder, EngineRequest, FloatArray, Task, TextEngine
from app.engines.torch import load

ADAPTER = Path("app/models/adapters/sentiment")
LABELS = ("NEGATIVE", "POSITIVE")
BATCHES = (1, 8, 64, 256)
ROUND_S = 3.0


def engine(folder: Path, task: Task, device: str) -> TextEngine:
    """Load the default classifier or embedder on one device."""
    is_classifier = task == Task.CLASSIFICATION
    made = load(
        EngineRequest(
            name="x",
            task=task,
            engine="torch",
            folder=folder,
            adapter=ADAPTER if is_classifier else None,
            labels=LABELS if is_classifier else (),
            device=device,
            threads=8,
        )
    )
    assert isinstance(made, Classifier | Embedder)  # noqa: S101
    return made


def rows(made: TextEngine, texts: list[str], size: int = 64) -> FloatArray:
    """Run texts in batches of neighbours in length; (texts, labels or dimensions) float32."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    found: dict[int, FloatArray] = {}
    for start in range(0, len(order), size):
        chunk = order[start : start + size]
        batch = made.encode([texts[index] for index in chunk])
        out = made.classify(batch) if isinstance(made, Classifier) else made.embed(batch)  # type: ignore[attr-defined]
        found.update(zip(chunk, out, strict=True))
    return np.stack([found[index] for index in range(len(texts))])


def texts_per_second(made: TextEngine, texts: list[str], size: int) -> float:
    """Run batches for a while, tokenisation included."""
    done, started = 0, time.perf_counter()
    while time.perf_counter() < started + ROUND_S:
        start = done % (len(texts) - size)
        rows(made, texts[start : start + size], size)
        done += size
    return done / (time.perf_counter() - started)


def main(folder: Path, texts: list[str]) -> None:
    """Print what agrees and how quick it is."""
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    for task in (Task.CLASSIFICATION, Task.EMBEDDING):
        cpu, gpu = engine(folder, task, "cpu"), engine(folder, task, "cuda")
        expected, found, alone = rows(cpu, texts), rows(gpu, texts), rows(gpu, texts, 1)
        if task == Task.CLASSIFICATION:
            equal = (expected.argmax(1) == found.argmax(1)).mean()
            print(f"labels equal {equal:.4f}, scores within {np.abs(expected - found).max():.4f}")
        else:
            print(f"cosine at least {(expected * found).sum(1).min():.5f}")
        print(f"alone and in a batch within {np.abs(found - alone).max():.4f}")
        for size in BATCHES:
            print(f"{task} on cuda, batches of {size}: {texts_per_second(gpu, texts, size):.0f}/s")


if __name__ == "__main__":
    lines = Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()
    main(Path(sys.argv[1]), lines)
