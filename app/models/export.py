"""Writes a model of the catalogue as a folder that its own library alone can load."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from app.engines.base import Embedder, TextEngine, needs_pairs
from app.engines.folder.module_list import module_files
from app.engines.folder.tokenizer import read_tokenizer
from app.engines.folder.transformer_settings import (
    MODULES,
    TRANSFORMER_FILES,
    has_modules,
    transformer_settings,
)
from app.engines.folder.vector_settings import SETTINGS
from app.errors import SourceError, StartupError
from app.models.catalog import EMBEDDING_DEFAULTS, Catalog, ModelSpec
from app.models.loading import ModelLoader
from app.models.sources import Sources

# As usual; tempfile and safetensors make theirs readable by the owner only.
FOLDER_MODE = 0o755
FILE_MODE = 0o644


def export(catalog: Catalog, name: str, folder: Path, *, sources: Sources, threads: int) -> None:
    """Write merged float32 safetensors, the tokenizer and the config with its labels.

    What an embedder or a cross-encoder has for sentence-transformers is copied. The folder appears
    when it is complete, so that an interrupted export leaves none.

    Args:
        catalog: has the model.
        name: of the model.
        folder: is made; it may exist if it is empty.
        sources: resolve the model's files.
        threads: processor threads for the first call, which proves that the model runs.

    Raises:
        StartupError: there is no such model, it has no weights that torch can load or settings that
            no folder can hold, or the folder is in use or can't be written.

    """
    spec = _find(catalog, name)
    refuse_used(folder)
    loader = ModelLoader(sources, folder=catalog.folder, device="cpu", threads=threads)
    loaded = loader(spec.model_copy(update={"engine": "torch", "device": "cpu"}))
    try:
        source = sources.resolve(spec.source or "", base=catalog.folder, pins=spec.pins).path
        tokenizer = _tokenizer(source)
        assert isinstance(loaded.engine, TextEngine)  # noqa: S101  # torch has no others
        tokenizer.model_max_length = loaded.engine.max_tokens  # what this service cuts texts to
        _write(loaded.engine, tokenizer, folder, source=source)
    except OSError as failure:
        raise StartupError(f"{folder}: can't be written: {failure.strerror}") from failure
    finally:
        loaded.engine.close()


def _find(catalog: Catalog, name: str) -> ModelSpec:
    """Return the entry, if it has weights and a folder can hold all its settings."""
    spec = catalog.to_load(name)
    if spec is None:
        known = ", ".join(spec.name for spec in catalog.specs) or "none"
        raise StartupError(f"there is no model {name!r} in the catalogue; it has {known}")
    if spec.source is None:
        raise SourceError(f"model {name!r} has no source, so there are no weights to export")
    # A folder of sentence-transformers can't hold all settings of an entry.
    if names := [n for n, default in EMBEDDING_DEFAULTS.items() if getattr(spec, n) != default]:
        raise StartupError(
            f"model {name!r}: {', '.join(names)} can't be exported: say it in the files of the"
            " source, and remove it from the catalogue"
        )
    return spec


def refuse_used(folder: Path) -> None:
    """Refuse a folder that has files already.

    Raises:
        StartupError: the folder has files, or can't be read.

    """
    try:
        if folder.exists() and any(folder.iterdir()):
            raise StartupError(f"{folder}: is not empty; name a folder that is, or a new one")
    except NotADirectoryError:
        raise StartupError(f"{folder}: is a file; name a folder") from None
    except OSError as failure:
        raise StartupError(f"{folder}: can't be read: {failure.strerror}") from failure


def _tokenizer(folder: Path) -> Any:  # noqa: ANN401
    """Return transformers' tokenizer of the model."""
    import transformers  # noqa: PLC0415 -- heavy

    return read_tokenizer(folder, transformers)


def _write(engine: Any, tokenizer: Any, folder: Path, *, source: Path) -> None:  # noqa: ANN401
    """Write into a temporary folder beside it, then rename that."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{folder.name}.", ignore_cleanup_errors=True
    ) as unfinished:
        engine.module.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        if has_modules(source) and (isinstance(engine, Embedder) or needs_pairs(engine)):
            _write_modules(source, Path(unfinished), window=engine.max_tokens)
        for path in (Path(unfinished), *Path(unfinished).rglob("*")):
            path.chmod(FOLDER_MODE if path.is_dir() else FILE_MODE)
        Path(unfinished).replace(folder)


def _write_modules(source: Path, folder: Path, *, window: int) -> None:
    """Write what sentence-transformers reads beside the model; texts are cut as here."""
    for file in (source / MODULES, source / SETTINGS, *module_files(source)):
        if file.is_file():
            target = folder / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    settings = {**transformer_settings(source)[1], "max_seq_length": window}
    (folder / TRANSFORMER_FILES[0]).write_text(json.dumps(settings, indent=2), encoding="utf-8")
