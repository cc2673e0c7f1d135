"""Turns a model's `source` into verified files on this machine."""

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.errors import SourceError
from app.models import hub, s3
from app.models.files import unreadable
from app.models.verify import verify

# `app models bake` writes it into a model's folder. Files that are copied into an image get new
# times, but stored vectors are found by their model's version, which must stay the same.
VERSION_FILE = "baked-version.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Where a model's files are, and their version."""

    path: Path
    version: str


class Sources:
    """Resolves `package:`, `file:`, `hf:` and `s3:` sources; blocks while it downloads.

    Args:
        cache: folder for downloads; made when it is needed.
        hub_endpoint: address of a mirror of the hub, or None for the hub itself.

    """

    def __init__(self, cache: Path, *, hub_endpoint: str | None = None) -> None:
        self._cache = cache
        self._hub_endpoint = hub_endpoint

    def resolve(self, source: str, *, base: Path, pins: Mapping[str, str]) -> Resolved:
        """Return the verified files of a source, downloading them if need be.

        Args:
            source: as in the catalogue, such as `hf:org/name@revision`.
            base: folder that a relative `file:` path starts from.
            pins: file name → sha256; the name "" stands for a source that is one file.

        Raises:
            SourceError: the source isn't understood, or its files aren't available.
            UnsafeModelError: a digest is wrong, or the weights are a pickle.

        """
        scheme, _, name = source.partition(":")
        if scheme == "package":
            resolved = _from_package(name)
        elif scheme == "file":
            resolved = _from_file(name, base)
        elif scheme == "hf":
            folder = hub.fetch(name, cache=self._cache / "hub", endpoint=self._hub_endpoint)
            resolved = Resolved(path=folder, version=folder.name[:12])
        elif scheme == "s3":
            folder = s3.fetch(name, cache=self._cache / "s3")
            resolved = Resolved(path=folder, version=folder.name)
        else:
            raise SourceError(f"source {source!r}: begins with none of package:, file:, hf:, s3:")
        verify(resolved.path, pins)
        return resolved


def _from_package(name: str) -> Resolved:
    """Find `package/path` inside an installed package, without importing it."""
    package, _, inside = name.partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(f"package:{name}: no package {package!r} is installed")
    path = Path(spec.submodule_search_locations[0]) / inside
    if not path.exists():
        raise SourceError(f"package:{name}: the package has no {inside!r}")
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"  # a package on the path that was never installed, or under another name
    return Resolved(path=path, version=version)


def _from_file(name: str, base: Path) -> Resolved:
    """Return files that the operator put there; `~` is expanded."""
    path = base / Path(name.removeprefix("//") if name.startswith("///") else name).expanduser()
    try:
        if not path.exists():
            raise SourceError(f"file:{name}: there is no {path}")
        return Resolved(path=path.resolve(), version=_edition(path))
    except OSError as failure:
        raise unreadable(path, failure) from None


def _edition(path: Path) -> str:
    """Return a version that changes when a file is changed, without reading the files."""
    version_file = (path if path.is_dir() else path.parent) / VERSION_FILE
    if version_file.is_file():
        return version_file.read_text(encoding="utf-8").strip()
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:12]


def digest(path: Path) -> str:
    """Return a version made from the content of a file or folder: the same everywhere."""
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            file_digest = hashlib.file_digest(content, "sha256").hexdigest()
        total.update(f"{file.relative_to(path).as_posix()} {file_digest}\n".encode())
    return total.hexdigest()[:12]
