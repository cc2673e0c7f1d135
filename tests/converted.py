"""Where tests keep converted models, so that a machine converts each once, not each run.

A converted model's folder is named after its files and the libraries' versions; this one after the
code that converts, so that a change to it converts anew.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from app.engines.base import EngineRequest

ENGINES = Path(__file__).parent.parent / "app" / "engines"
KEPT = 4  # editions of the code, each with about 200 MB


def _edition() -> str:
    digest = hashlib.sha256()
    for file in sorted(ENGINES.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _prepare(shelf: Path) -> Path:
    """Return the folder of this edition; those that were used longest ago are removed."""
    folder = shelf / _edition()
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    editions = sorted(shelf.iterdir(), key=lambda edition: edition.stat().st_mtime, reverse=True)
    for old in editions[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)  # another run may remove it at the same time
    return folder


_CACHES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CONVERTED = _prepare(_CACHES / "ml-api" / "tests")


def converted_once(request: EngineRequest) -> EngineRequest:
    """Return the request with a cache that stays: for tests of the answers, not of converting."""
    assert request.openvino is not None
    return replace(request, openvino=replace(request.openvino, cache=CONVERTED / "tiny"))


@contextmanager
def kept_conversions(name: str) -> Iterator[Path]:
    """Give the folder of a kind of tests in which conversions stay, to one process at a time.

    The folder of a model is named after a digest of its files: none is taken for another.
    """
    folder = CONVERTED / name
    folder.mkdir(exist_ok=True)
    with FileLock(folder / ".lock"):
        yield folder
