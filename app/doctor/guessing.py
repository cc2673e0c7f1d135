"""Which entry of the catalogue a file or folder would have, without opening it in a library."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from app.engines.base import Task
from app.engines.folder.heads import ENTAILMENT, HEADS, cross_encoder_mark
from app.engines.llama_cpp.gguf_header import read_header
from app.engines.llama_cpp.gguf_task import task_of
from app.engines.python.contract import PREDICT, PREDICT_ONE
from app.errors import SourceError, UnsafeModelError
from app.models.catalog import ONNX, PYTHON, Catalog, ModelSpec, read_catalog
from app.models.verify import PICKLES

CATALOG: Final = "models.toml"
CONFIG: Final = "config.json"
# Only of a folder of sentence-transformers.
MODULES: Final = "modules.json"
# Of a folder whose items are images.
PREPROCESSOR: Final = "preprocessor_config.json"
BARE: Final = "Model"  # how a class of transformers without a head ends
METHODS: Final = frozenset({PREDICT, PREDICT_ONE})
NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")
REGRESSION: Final = "regression"
# What else a folder may be for that says nothing but what its head has.
ALTERNATIVES: Final[Mapping[str, str]] = {
    Task.RANKING: "one that rates single texts, not pairs of them, is for text-classification",
    Task.ZERO_SHOT: "for the labels of pairs of texts themselves it is text-classification",
}
A_CLASS: Final = "`app models new NAME --kind sklearn` writes one to start from"
# Formats of libraries that a class of the operator's opens.
OF_LIBRARIES: Final = (
    *(".skops", ".ubj", ".cbm", ".keras", ".h5", ".hdf5", ".pb", ".pt2", ".tflite", ".mlmodel"),
)


def guess(path: Path) -> Catalog:
    """Return entries for what a path names: a file, a folder, or `model.py:Class`.

    A folder with a models.toml, or such a file, has its own entries.

    Raises:
        SourceError: nothing there can be served; says what it is, and what to do.
        UnsafeModelError: it is a pickle.
        EngineError: it is a GGUF file that is damaged.
        CatalogError: its models.toml is wrong.

    """
    path = path.expanduser()
    place, _, class_name = str(path).rpartition(":")
    if place.endswith(".py") and not path.exists():
        return _classes(Path(place), only=class_name)
    if not path.exists():
        raise SourceError(f"there is no {path}")
    path = path.resolve()
    catalog = _of_folder(path) if path.is_dir() else _of_file(path)
    if not catalog.specs:
        raise SourceError(f"{path}: names no model; an entry begins with [[models]]")
    return catalog


def _of_file(path: Path) -> Catalog:
    suffix = path.suffix.lower()
    if suffix == ".toml":
        return read_catalog(path)
    if suffix == ".py":
        return _classes(path)
    if suffix == ".onnx":
        return _one(path, engine=ONNX)
    if suffix == ".gguf":
        return _one(path, task=task_of(read_header(path)).value)
    if suffix == ".safetensors":
        raise SourceError(
            f"{path}: are weights alone: name their folder, with config.json and a tokenizer; for"
            f" a network of your own write a class: {A_CLASS.replace('sklearn', 'torch')}"
        )
    raise _refusal(path)


def _refusal(path: Path) -> SourceError | UnsafeModelError:
    """Return why a file can't be served by itself."""
    if path.suffix.lower() in PICKLES:
        return UnsafeModelError(
            f"{path}: is a pickle, which can run code when it is opened; if you made it yourself, a"
            f" Python class of yours can open it: {A_CLASS}"
        )
    if path.suffix.lower() in OF_LIBRARIES:
        return SourceError(f"{path}: its own library opens it, in a Python class: {A_CLASS}")
    return SourceError(
        f"{path}: is of no kind that is served: .onnx, .gguf, .py with a class, .toml, or a folder"
        " with config.json and safetensors"
    )


def _of_folder(folder: Path) -> Catalog:
    if (folder / CATALOG).is_file():
        return read_catalog(folder / CATALOG)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    by_suffix = {suffix: [f for f in files if f.suffix == suffix] for suffix in {*_suffixes(files)}}
    graphs = by_suffix.get(".onnx", [])
    if (folder / CONFIG).is_file() and (by_suffix.get(".safetensors") or not graphs):
        return _one(folder, task=_task(folder))
    if graphs:
        return _one(folder if len(graphs) == 1 else graphs[0], engine=ONNX)
    if ggufs := by_suffix.get(".gguf"):
        return _of_file(ggufs[0])
    if classes := [file for file in by_suffix.get(".py", []) if _class_names(file)]:
        return _classes(classes[0])
    others = [file for file in files if file.suffix.lower() in (*PICKLES, *OF_LIBRARIES)]
    raise _refusal(others[0] if others else folder)


def _suffixes(files: Sequence[Path]) -> Sequence[str]:
    return [file.suffix for file in files]


def _task(folder: Path) -> str:
    """Return the task of a folder of transformers by its architecture, the longest ending first."""
    try:
        has_pairs = cross_encoder_mark(folder) is not None
        if (folder / MODULES).is_file() and not has_pairs:
            return Task.EMBEDDING.value
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        if has_pairs and len(config.get("id2label", ())) == 1:
            return Task.RANKING.value
        (architecture, *_) = config["architectures"]
        ending = max((end for end in HEADS if str(architecture).endswith(end)), key=len)
        if HEADS[ending] == Task.CLASSIFICATION:
            return _task_of_labels(config)
    except (ValueError, LookupError, TypeError, AttributeError, OSError):
        return Task.CLASSIFICATION.value  # which says what is wrong with it
    if ending == BARE and (folder / PREPROCESSOR).is_file():
        return Task.IMAGE_EMBEDDING.value
    return HEADS[ending]


def _task_of_labels(config: Mapping[str, Any]) -> str:
    """Return what a head that classifies sequences is likely for, by its labels.

    One number is most often how well a text answers a query, and entailment what a model of
    natural language inference tells.
    """
    labels = list(config.get("id2label", {}).values())
    if len(labels) == 1 and config.get("problem_type") != REGRESSION:
        return Task.RANKING.value
    if any(str(label).lower().startswith(ENTAILMENT) for label in labels):
        return Task.ZERO_SHOT.value
    return Task.CLASSIFICATION.value


def alternative(path: Path, spec: ModelSpec) -> str | None:
    """Return what a model may be for instead; None where its folder or its catalogue says it.

    Args:
        path: as `guess` got it.
        spec: an entry that `guess` returned.

    """
    folder = path.expanduser()
    is_guess = (folder / CONFIG).is_file() and not (folder / CATALOG).is_file()
    if not is_guess or (spec.task == Task.RANKING and cross_encoder_mark(folder) is not None):
        return None
    return ALTERNATIVES.get(spec.task)


def _one(path: Path, *, engine: str = "auto", task: str | None = None) -> Catalog:
    fields = {"task": task} if task else {}
    return _catalog(
        path.parent, [(path.stem if path.is_file() else path.name, path.name)], engine, fields
    )


def _classes(path: Path, *, only: str | None = None) -> Catalog:
    """Return an entry for each class of a file that has a method to call, or for one of them."""
    if not path.is_file():
        raise SourceError(f"there is no {path}")
    names = [only] if only else _class_names(path)
    if not names:
        raise SourceError(f"{path}: no class in it has predict or predict_one: {A_CLASS}")
    path = path.resolve()
    named = [(name.lower(), f"{path.name}:{name}") for name in names]
    return _catalog(path.parent, named, PYTHON, {})


def _class_names(path: Path) -> list[str]:
    """Return the classes of a file that have a method to call; the file isn't run.

    Raises:
        SourceError: it isn't Python.

    """
    try:
        tree = ast.parse(path.read_bytes(), path.name)
    except (SyntaxError, ValueError) as failure:
        line = f"line {failure.lineno}: {failure.msg}" if isinstance(failure, SyntaxError) else ""
        raise SourceError(f"{path}: can't be read as Python: {line or failure}") from None
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return [one.name for one in classes if METHODS & _method_names(one)]


def _method_names(node: ast.ClassDef) -> set[str]:
    return {one.name for one in node.body if isinstance(one, ast.FunctionDef)}


def _catalog(
    folder: Path, named: Sequence[tuple[str, str]], engine: str, fields: dict[str, str]
) -> Catalog:
    specs = [
        ModelSpec.model_validate(
            {"name": _model_name(name), "engine": engine, "source": f"file:{source}", **fields}
        )
        for name, source in named
    ]
    return Catalog(specs, folder=folder)


def _model_name(name: str) -> str:
    """Return a name that a model may have."""
    return NO_NAME.sub("-", name).strip("._-")[:64] or "model"
