"""Real texts and their vectors: the snippets of the sentiment data, by the default embedder."""

import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from app.engines.base import Embedder, FloatArray, OpenVinoOptions
from app.models.catalog import read_catalog
from app.models.loading import ModelLoader
from app.models.sources import Sources
from app.settings import Settings
from scripts.sentiment_data import ARCHIVE, DEFAULT_CACHE, FILES, load_examples

BATCH = 8
EMBEDDER = "minilm"


def read_snippets(domain: str) -> list[str]:
    """Return all snippets of a domain, those of unclear sentiment too, in their order."""
    load_examples()  # fetches the archive, and checks it
    with tarfile.open(DEFAULT_CACHE / ARCHIVE, mode="r:gz") as tar:
        file = tar.extractfile(FILES[domain])
        assert file is not None  # noqa: S101 -- load_examples has read it
        lines = file.read().decode("utf-8").split("\n")
    return [line.split("\t", maxsplit=2)[2].strip() for line in lines if line.strip()]


def embed(texts: Sequence[str]) -> FloatArray:
    """Return unit vectors of texts, (texts, dimensions), in their order."""
    engine = _load()
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    batches = [order[at : at + BATCH] for at in range(0, len(order), BATCH)]

    def run(batch: Sequence[int]) -> FloatArray:
        return engine.embed(engine.encode([texts[place] for place in batch]))

    with ThreadPoolExecutor(2) as threads:
        vectors = np.concatenate(list(threads.map(run, batches)))
    engine.close()
    return vectors[np.argsort(np.array(order))]


def _load() -> Embedder:
    settings = Settings(_env_file=None)
    catalog = read_catalog(settings.models_file)
    models = Path(settings.models_dir)
    cores = settings.core_count
    loader = ModelLoader(
        Sources(models),
        folder=catalog.folder,
        device="cpu",
        threads=1,
        openvino=OpenVinoOptions(cache=models / "openvino", cores=cores, calls=2),
    )
    (spec,) = (spec for spec in catalog.specs if spec.name == EMBEDDER)
    engine = loader(spec).engine
    assert isinstance(engine, Embedder)  # noqa: S101 -- what its task loads
    return engine
