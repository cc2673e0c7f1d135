"""Where the weights may be that an `.onnx` file leaves to other files, and that pins cover them.

A graph names them itself, so a graph from elsewhere could name any file of the machine. And a
digest of the graph alone says nothing of its weights.
"""

import mmap
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from app.errors import SourceError, UnsafeModelError
from app.models.files import unreadable

# TensorProto.external_data of onnx.proto: an entry with the key "location" (field 1) and a value
# (field 2), whose length is one byte, or two.
LOCATION = re.compile(rb"\x0a\x08location\x12(?:([\x00-\x7f])|([\x80-\xff])([\x00-\x7f]))")
SEVEN_BITS = 0x7F


def external_files(file: Path) -> list[str]:
    """Return the names of the files that an `.onnx` file leaves weights to, each once.

    Raises:
        SourceError: it can't be read.

    """
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as m:
            return sorted(set(_names(m)))
    except ValueError:
        return []  # an empty file, which can't be mapped
    except OSError as failure:
        raise unreadable(file, failure) from None


def _names(content: mmap.mmap) -> Iterator[str]:
    for found in LOCATION.finditer(content):
        short, low, high = found.groups()
        length = short[0] if short else (low[0] & SEVEN_BITS) | (high[0] << 7)
        yield content[found.end() : found.end() + length].decode(errors="replace")


def check_external(file: Path, name: str, pins: Mapping[str, str]) -> None:
    """Check the files that an `.onnx` file leaves weights to.

    Args:
        file: the graph.
        name: of the graph as pins have it: relative to its folder, or "" where it is the source.
        pins: file name → sha256.

    Raises:
        UnsafeModelError: one is outside of the graph's folder, or has no pin where the graph has.
        SourceError: one isn't there.

    """
    for external in external_files(file):
        path = PurePosixPath(external)
        if path.is_absolute() or ".." in path.parts:
            raise UnsafeModelError(f"{file}: takes weights from {external}, outside of its folder")
        if not (file.parent / path).is_file():
            raise SourceError(f"{file}: its weights are in {external}, which isn't beside it")
        if pins and (PurePosixPath(name).parent / path).as_posix() not in pins:
            raise UnsafeModelError(
                f"{file}: its weights are in {external}, which sha256 doesn't cover: let source be"
                " the folder, and pin each file by its name"
            )
