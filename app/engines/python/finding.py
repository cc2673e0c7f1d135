"""Where a user's class is: a module that is installed, or one file beside the catalogue.

Only the catalogue names code, and only what is on this machine. The bytes that are compared with
the entry's sha256 are those that run.
"""

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from app.engines.python.failures import UserCodeError, during_load
from app.errors import SourceError, UnsafeModelError

FILE: Final = "file"
PYTHON: Final = "python"
FORMS: Final = '"python:package.module:Class" or "file:model.py:Class"'
VERSION_CHARS: Final = 12
ONE_FILE: Final = (
    "files beside it aren't found: install them as a package, and name python:package.module:Class"
)
# Names of modules that are made of files; no package can have one.
PREFIX: Final = "ml_api model "


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundClass:
    """A class, the file it is from, and the version of that file."""

    kind: type
    file: str
    version: str


def find_class(source: str, *, base: Path, pins: Mapping[str, str], name: str) -> FoundClass:
    """Import what a `source` names.

    Args:
        source: as in the catalogue.
        base: folder that a relative file starts from.
        pins: file name → sha256; "" stands for the file.
        name: of the model.

    Raises:
        SourceError: there is no such file, module or class.
        UnsafeModelError: the file has another sha256 than the entry says.
        UserCodeError: importing it raises.

    """
    scheme, _, rest = source.partition(":")
    place, _, class_name = rest.rpartition(":")
    if scheme not in {FILE, PYTHON} or not place or not class_name.isidentifier():
        raise SourceError(f"source {source!r}: an engine of Python code takes {FORMS}")
    if scheme == FILE:
        path = base / Path(place).expanduser()
        content = _read(path, source)
        version = _check(content, path, pins)
        module = _module_of(content, path, name)
    else:
        path = _find_module(place, source)
        version = _check(_read(path, source), path, pins)
        module = during_load(
            f"import of {place}", lambda: importlib.import_module(place), file=str(path)
        )
    kind = getattr(module, class_name, None)
    if not isinstance(kind, type):
        found = "there is no" if kind is None else "no class is its"
        raise SourceError(f"source {source!r}: {found} {class_name}")
    return FoundClass(kind=kind, file=str(path), version=version)


def file_of(source: str, *, base: Path) -> Path | None:
    """Return the file that holds a class, without running it; None where it can't be told."""
    scheme, _, rest = source.partition(":")
    place = rest.rpartition(":")[0]
    if scheme == FILE:
        return base / Path(place).expanduser()
    try:
        return _find_module(place, source)
    except (SourceError, UserCodeError):
        return None


def _read(path: Path, source: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise SourceError(f"source {source!r}: there is no {path}") from None
    except OSError as failure:
        raise SourceError(f"{path}: can't be read: {failure.strerror}; see its rights") from None


def _check(content: bytes, path: Path, pins: Mapping[str, str]) -> str:
    """Compare a file with its pin; return its version.

    Raises:
        SourceError: another file is pinned.
        UnsafeModelError: the digest is another one.

    """
    digest = hashlib.sha256(content).hexdigest()
    if unknown := [name for name in pins if name not in {"", path.name}]:
        raise SourceError(f"{unknown[0]}: pinned in the catalogue, but {path.name} is what runs")
    for expected in pins.values():
        if expected != digest:
            raise UnsafeModelError(f"{path}: sha256 is {digest}, the catalogue says {expected}")
    return digest[:VERSION_CHARS]


def _find_module(module: str, source: str) -> Path:
    """Return a module's file; only the packages above it are imported.

    Raises:
        SourceError: it isn't installed, or isn't one file of Python.

    """

    def find() -> str | None:
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            return None
        return spec.origin if spec is not None and spec.has_location else None

    origin = during_load(f"import of {module}", find, file=module)
    if origin is None:
        raise SourceError(f"source {source!r}: no module {module!r} is installed")
    return Path(origin)


def _module_of(content: bytes, path: Path, name: str) -> ModuleType:
    """Run a file as a module of its own, which isn't found by `import`."""
    module = ModuleType(PREFIX + name)
    module.__file__ = os.fspath(path)
    module.__package__ = ""  # it is in none: what relative imports are told
    before = sys.modules.get(module.__name__)  # of a class that is loaded anew
    # Dataclasses and Pydantic look up a class's module by its name.
    sys.modules[module.__name__] = module
    try:
        during_load(
            f"import of {path.name}",
            lambda: exec(compile(content, path, "exec"), vars(module)),  # noqa: S102  # the operator's
            file=str(path),
        )
    except UserCodeError as refused:
        del sys.modules[module.__name__]
        if before is not None:
            sys.modules[module.__name__] = before
        if _is_beside(refused.__cause__, path):
            raise UserCodeError(f"{refused}; {ONE_FILE}") from refused.__cause__
        raise
    return module


def _is_beside(failure: BaseException | None, path: Path) -> bool:
    """Say whether an import failed because it is of a file beside the class's."""
    if not isinstance(failure, ImportError):
        return False
    if failure.name is None:
        return str(failure.msg).startswith("attempted relative import")
    name = failure.name.partition(".")[0]
    return any((path.parent / place).exists() for place in (name, f"{name}.py"))
