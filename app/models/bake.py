"""Writes a whole catalogue as one folder that an image without torch serves from."""

import shutil
import tempfile
from collections.abc import Sequence
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
            baking = _Baking(Path(unfinished), loader)
            specs = [baking.named(spec) for spec in catalog.specs]
            write_catalog(specs, Path(unfinished) / CATALOG_FILE)
            Path(unfinished).chmod(READABLE)
            Path(unfinished).replace(folder)
    except OSError as failure:
        raise StartupError(f"{folder}: can't be written: {failure.strerror}") from failure


class _Baking:
    """Bakes one model after the other.

    Args:
        folder: of all.
        loader: resolves their files.

    """

    def __init__(self, folder: Path, loader: ModelLoader) -> None:
        self._folder = folder
        self._loader = loader

    def named(self, spec: ModelSpec) -> ModelSpec:
        """Bake one model; return its new entry. Errors name it."""
        name = spec.name
        try:
            if not spec.versions:
                return self._model(spec, name)
            entries = []
            for version, loads in zip(spec.versions, spec.loads, strict=True):
                name = loads.name
                entries.append(self._model(loads, f"{spec.name}/{version.version}"))
        except StartupError as failure:
            raise StartupError(f"model {name!r}: {failure}") from failure
        return _with_versions(spec, entries)

    def _model(self, spec: ModelSpec, place: str) -> ModelSpec:
        """Write what one entry loads into a folder in the folder of all; return its new entry."""
        if spec.engine == PYTHON and (spec.source or "").startswith("file:"):
            raise StartupError(
                "a class in a file can't be baked, as only it knows which files it opens; install"
                ' it as a package, and name it "python:package.module:Class"'
            )
        if spec.engine in known_engines() and not known_engines()[spec.engine].has_files:
            return spec
        target = self._folder / place
        target.parent.mkdir(exist_ok=True)
        if self._is_gguf(spec):
            file = self._copy_gguf(spec, target)
            return spec.model_copy(update={"source": f"file:{place}/{file}", "sha256": None})
        if spec.task in IMAGE_TASKS:
            raise StartupError(
                "image models can't be baked: their images are prepared by transformers, which a"
                " lean image doesn't have"
            )
        if spec.engine not in ENGINES:
            raise StartupError(f"engine {spec.engine!r} can't be baked")
        # It is computed on the CPU here, and by OpenVINO there.
        spec = spec.model_copy(update={"device": None})
        request, version = self._loader.request(spec)
        baked.bake(request, target)
        _note_version(spec, request, version, target)
        changed = {"source": f"file:{place}", "adapter": None, "engine": "openvino", "sha256": None}
        return spec.model_copy(update=changed | EMBEDDING_DEFAULTS)  # they are in the model

    def _is_gguf(self, spec: ModelSpec) -> bool:
        """Say whether llama.cpp serves it, as chat models in any case."""
        tasks = known_engines()[LLAMA_CPP].tasks
        if spec.task not in tasks or spec.engine not in {"auto", LLAMA_CPP}:
            return False
        is_its = spec.task == Task.CHAT or spec.engine == LLAMA_CPP
        return is_its or is_gguf(self._loader.request(spec)[0].folder)

    def _copy_gguf(self, spec: ModelSpec, target: Path) -> str:
        """Copy a GGUF file; return its name."""
        request, version = self._loader.request(spec)
        file = find_file(request.folder)
        target.mkdir()
        shutil.copyfile(file, target / file.name)
        _note_version(spec, request, version, target)
        return file.name


def _with_versions(spec: ModelSpec, entries: Sequence[ModelSpec]) -> ModelSpec:
    """Return an entry whose versions have files of their own.

    Raises:
        StartupError: one engine can't serve them all any more.

    """
    if list(entries) == list(spec.loads):
        return spec  # none has files
    shared = [one.model_copy(update={"name": "", "source": None, "fake": {}}) for one in entries]
    if any(one != shared[0] for one in shared):
        raise StartupError(
            f"model {spec.name!r}: its versions can't be baked together, as some are files of GGUF"
            " and others aren't: an entry has one engine"
        )
    own = {"adapter": None, "sha256": None}
    versions = tuple(
        version.model_copy(update={"source": one.source, **own})
        for version, one in zip(spec.versions, entries, strict=True)
    )
    kept = {"name": spec.name, "fake": spec.fake, "rollback": spec.rollback}
    return shared[0].model_copy(update={**kept, "versions": versions})


def _note_version(spec: ModelSpec, request: EngineRequest, version: str, target: Path) -> None:
    """Keep the version of the source; of plain files a digest, as theirs depends on their times."""
    assert request.folder is not None  # noqa: S101  # it was baked from there
    if (spec.source or "").startswith("file:"):
        version = digest(request.folder)
    (target / VERSION_FILE).write_text(version + "\n", encoding="utf-8")
