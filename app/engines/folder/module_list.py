"""Reads modules.json: which modules follow each other, and where in the folder they lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from app.engines.folder.fields import REMOVE, unsupported
from app.engines.folder.transformer_settings import MODULES, has_modules
from app.engines.tokenizer import read_json
from app.errors import EngineError

LIBRARY = "sentence_transformers."
FIRST = ("Transformer", "Pooling")
FOLLOWING = ("Dense", "LayerNorm", "Normalize")
FIELDS = {"idx", "name", "path", "type", "kwargs"}
# Fields that this service ignores, with the reason. docs/models.md shows the list.
IGNORED = {
    f"{MODULES}: idx, name": "only the order counts",
    f"{MODULES}: kwargs": "arguments that a caller of `encode` may give; this service gives none",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A module: the library's class, and the folder inside the model's that it lies in."""

    kind: str
    path: str


def read_list(folder: Path) -> Sequence[Listed]:
    """Return a Transformer, a Pooling and what follows; none for a folder without modules.json.

    Raises:
        EngineError: there are others, or in other places.

    """
    if not has_modules(folder):
        return ()
    file = folder / MODULES
    content: list[Mapping[str, Any]] = read_json(file)  # type: ignore[assignment]  # a list
    modules = [_listed(file, entry) for entry in content]
    _check_order(file, [module.kind for module in modules])
    if modules[0].path:
        raise EngineError(
            f"{file}: path: the transformer lies in {modules[0].path!r}; save the model anew with a"
            " current sentence-transformers, which puts it beside modules.json"
        )
    for module in modules[1:]:
        if PureWindowsPath(module.path) == PureWindowsPath():
            raise unsupported(
                file,
                "path",
                module.path,
                f"name the folder of the {module.kind}, inside the model's",
            )
    # The library keeps the later of two with one name, in the place of the earlier.
    names = [str(entry["name"]) for entry in content if "name" in entry]
    if len(names) != len(set(names)):
        raise EngineError(f"{file}: name: {names} has one twice; number them")
    return modules


def _listed(file: Path, entry: Mapping[str, Any]) -> Listed:
    for field in set(entry) - FIELDS:
        raise unsupported(file, field, entry[field], REMOVE)
    name, path = str(entry.get("type", "")), entry.get("path")
    package, _, kind = name.rpartition(".")
    if not package.startswith(LIBRARY) or kind not in {*FIRST, *FOLLOWING}:
        raise EngineError(
            f"{file}: type: {name!r} is not done here; of sentence-transformers"
            f" {', '.join((*FIRST, *FOLLOWING))} are"
        )
    if not isinstance(path, str) or not _is_inside(path):
        raise unsupported(file, "path", path, "name a folder inside the model's, without '..'")
    return Listed(kind=kind, path=path)


def _is_inside(path: str) -> bool:
    """Say whether a path stays in the folder, on every system, as the library does."""
    pure = PureWindowsPath(path)
    return not pure.anchor and ".." not in pure.parts and "\0" not in path


def _check_order(file: Path, kinds: Sequence[str]) -> None:
    if tuple(kinds[:2]) != FIRST:
        raise EngineError(
            f"{file}: begins with {', '.join(kinds[:2]) or 'nothing'}; an embedder here begins"
            f" with {', '.join(FIRST)}"
        )
    for kind in kinds[2:]:
        if kind not in FOLLOWING:
            raise EngineError(
                f"{file}: type: a second {kind} is not done here; behind the Pooling"
                f" {', '.join(FOLLOWING)} are"
            )


def module_files(folder: Path) -> list[Path]:
    """Return the files of the modules behind the transformer, in a fixed order.

    A cross-encoder has none; what it may have is checked where it is loaded.

    Raises:
        EngineError: as `read_list`.

    """
    if has_modules(folder) and len(read_json(folder / MODULES)) == 1:
        return []
    inside = [folder / module.path for module in read_list(folder)[1:]]
    return sorted(
        file
        for path in inside
        if path.is_dir()
        for file in path.iterdir()
        if file.suffix in {".json", ".safetensors"}
    )
