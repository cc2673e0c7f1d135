"""Writes a whole catalogue as one folder that an image without torch serves from."""

import shutil
import tempfile
from pathlib import Path

from app.engines.base import IMAGE_TASKS, EngineRequest, OpenVinoOptions, Task
from app.engines.llama_cpp.server import find_file, is_gguf
from app.engines.loader import known_engines
from app.engines.openvino import baked
from app.errors import StartupError
from app.models.catalog import EMBEDDING_DEFAULTS, PYTHON, Catalog, ModelSpec
from app.models.catalog_writing import write_catalog
from app.models.export import refuse_used
from app.models.loading import ModelLoader
from app.models.sources import VERSION_FILE, Sources, digest

CATALOG_FILE = "models.toml"
READABLE = 0o755  # by everyone, as any other folder; tempfile's own is not
LLAMA_CPP = "llama_cpp"
ENGINES = frozenset({"auto", "openvino"})


def bake(catalog: Catalog, folder: Path, *, sources: Sources, cores: int) -> None:
    """Convert every model, and write a catalogue of the converted ones beside them.

    The folder appears when it is complete. GGUF files are copied; remote and fake ones have only
    their entries.

    Args:
        catalog: the models.
        folder: is made; it may exist if it is empty.
        sources: resolve the models' files.
        cores: processor cores to compute on.

    Raises:
        StartupError: a model can't be had or can't be converted, or the folder is in use or can't
            be written.

    """
    refuse_used(folder)
    loader = ModelLoader(
        sources,
        folder=catalog.folder,
        device="cpu",
        threads=cores,
        openvino=OpenVinoOptions(cache=folder, cores=cores, calls=cores),
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix=f".{folder.name}.", ignore_cleanup_errors=True
        ) as unfinished:
            specs = [_bake_named(spec, Path(unfinished), loader) for spec in catalog.specs]
            write_catalog(specs, Path(unfinished) / CATALOG_FILE)
            Path(unfinished).chmod(READABLE)
            Path(unfinished).replace(folder)
    except OSError as failure:
        raise StartupError(f"{folder}: can't be written: {failure.strerror}") from failure


def _bake_named(spec: ModelSpec, folder: Path, loader: ModelLoader) -> ModelSpec:
    """Bake one model; errors name it."""
    try:
        return _bake_model(spec, folder / spec.name, loader)
    except StartupError as failure:
        raise StartupError(f"model {spec.name!r}: {failure}") from failure


def _bake_model(spec: ModelSpec, target: Path, loader: ModelLoader) -> ModelSpec:
    """Write one model into a folder of its own name; return its new entry."""
    if spec.versions:
        raise StartupError(
            "a model with versions can't be baked: an image has one of them, and the next one is"
            " another image; give the entry that version's source, and no [[models.versions]]"
        )
    if spec.engine == PYTHON and (spec.source or "").startswith("file:"):
        raise StartupError(
            "a class in a file can't be baked, as only it knows which files it opens; install it as"
            ' a package, and name it "python:package.module:Class"'
        )
    if spec.engine in known_engines() and not known_engines()[spec.engine].has_files:
        return spec
    if _is_gguf(spec, loader):
        source = _copy_gguf(spec, target, loader)
        return spec.model_copy(update={"source": source, "sha256": None})
    if spec.task in IMAGE_TASKS:
        raise StartupError(
            "image models can't be baked: their images are prepared by transformers, which a lean"
            " image doesn't have"
        )
    if spec.engine not in ENGINES:
        raise StartupError(f"engine {spec.engine!r} can't be baked")
    # It is computed on the CPU here, and by OpenVINO there.
    spec = spec.model_copy(update={"device": None})
    request, version = loader.request(spec)
    baked.bake(request, target)
    _note_version(spec, request, version, target)
    changed = {"source": f"file:{spec.name}", "adapter": None, "engine": "openvino", "sha256": None}
    return spec.model_copy(update=changed | EMBEDDING_DEFAULTS)  # they are in the model


def _is_gguf(spec: ModelSpec, loader: ModelLoader) -> bool:
    """Say whether llama.cpp serves it, as chat models in any case."""
    if spec.task not in known_engines()[LLAMA_CPP].tasks or spec.engine not in {"auto", LLAMA_CPP}:
        return False
    is_its = spec.task == Task.CHAT or spec.engine == LLAMA_CPP
    return is_its or is_gguf(loader.request(spec)[0].folder)


def _copy_gguf(spec: ModelSpec, target: Path, loader: ModelLoader) -> str:
    """Copy a GGUF file; return its new source."""
    request, version = loader.request(spec)
    file = find_file(request.folder)
    target.mkdir()
    shutil.copyfile(file, target / file.name)
    _note_version(spec, request, version, target)
    return f"file:{spec.name}/{file.name}"


def _note_version(spec: ModelSpec, request: EngineRequest, version: str, target: Path) -> None:
    """Keep the version of the source; of plain files a digest, as theirs depends on their times."""
    assert request.folder is not None  # noqa: S101  # it was baked from there
    if (spec.source or "").startswith("file:"):
        version = digest(request.folder)
    (target / VERSION_FILE).write_text(version + "\n", encoding="utf-8")
