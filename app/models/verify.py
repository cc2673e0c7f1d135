"""Decides which files of a model may be loaded: no pickles, no wrong digests."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from app.engines.openvino.baked import is_baked
from app.errors import SourceError, UnsafeModelError
from app.models.files import (
    DESCRIPTIONS,
    EXTERNAL_WEIGHTS,
    WEIGHTS,
    check_format,
    find_files,
    unreadable,
)
from app.models.onnx_files import check_external

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")


def choose_files(names: Sequence[str], where: str) -> list[str]:
    """Return the files that a model needs, out of all in its folder.

    Raises:
        UnsafeModelError: the only weights are a pickle; the message names it.
        SourceError: there are no weights.

    """
    if not any(name.endswith(WEIGHTS) for name in names):
        pickles = sorted(name for name in names if name.endswith(PICKLES))
        if pickles:
            raise UnsafeModelError(
                f"{where}: {pickles[0]} is a pickle, which can run code when it is loaded;"
                " convert it to safetensors"
            )
        raise SourceError(f"{where}: no weights there ({', '.join(WEIGHTS)})")
    needed = (*WEIGHTS, *EXTERNAL_WEIGHTS, *DESCRIPTIONS)
    return [name for name in names if name.endswith(needed)]


def verify(path: Path, pins: Mapping[str, str]) -> None:
    """Check a model's folder or file before anything reads it.

    Args:
        path: the folder or the file.
        pins: file name relative to the folder → sha256; "" for a source that is one file.

    Raises:
        UnsafeModelError: a digest differs, or weights are a pickle, whatever their name.
        SourceError: there are no weights, a pinned file is missing, or one can't be read.

    """
    files = find_files(path)
    if "" in files and path.name in pins:
        files = {path.name: path}
    if not is_baked(path):  # OpenVINO's weights are called .bin too, and are no pickle
        choose_files([str(file) for file in files.values()], str(path))
    for name, digest in pins.items():
        if name not in files:
            raise SourceError(f"{path / name}: pinned in the catalogue, but there is no such file")
        _check_digest(files[name], digest)
    for name, file in files.items():
        check_format(file)
        if file.suffix == ".onnx":
            check_external(file, name, pins)


def _check_digest(file: Path, expected: str) -> None:
    """Compare a file with its pin."""
    try:
        with file.open("rb") as content:
            actual = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as failure:
        raise unreadable(file, failure) from None
    if actual != expected:
        raise UnsafeModelError(f"{file}: sha256 is {actual}, the catalogue says {expected}")
