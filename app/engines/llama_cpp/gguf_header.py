"""Reads the header of a GGUF file: what it says of its model, and the shapes of its weights.

The format is that of ggml's documentation, version 2 and 3: pairs of a key and a typed value, then
the name, the shape and the place of each tensor. Long lists, such as the vocabulary, are skipped.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from app.errors import EngineError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# By the format's number of a type: its `struct` code. 8 is a text, 9 a list.
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
TEXT, LIST = 8, 9
# The largest models have some thousands of both; a damaged file may say anything.
MAX_ENTRIES = 100_000
MAX_TEXT_BYTES = 16_000_000
MAX_DIMENSIONS = 8
LONGEST_LIST = 64  # that is kept: names of outputs, sections of positions


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """What a file says before its weights.

    Args:
        architecture: llama.cpp's name of it, such as "bert".
        metadata: by the keys of the file; lists that are long are their lengths.
        shapes: of each tensor, by its name, the innermost dimension first.

    """

    architecture: str
    metadata: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]

    def get(self, key: str) -> Any:  # noqa: ANN401  # whatever the file has there
        """Return a value of this architecture, or None."""
        return self.metadata.get(f"{self.architecture}.{key}")


def read_header(file: Path) -> GgufHeader:
    """Read it; a file of some hundred thousand words takes a tenth of a second.

    Raises:
        EngineError: the file is cut off, damaged, or of another version; or it can't be read.

    """
    try:
        with file.open("rb") as opened:
            return _Reader(opened).read()
    except (EOFError, OverflowError, ValueError, struct.error) as failure:
        raise EngineError(f"{file}: its header is cut off or damaged: {failure}") from None
    except OSError as failure:
        raise EngineError(f"{file}: can't be read: {failure.strerror}") from failure


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self) -> GgufHeader:
        if self._bytes(len(MAGIC)) != MAGIC:
            raise ValueError("it doesn't begin as GGUF")
        version = self._number("I")
        if version not in VERSIONS:
            raise ValueError(f"version {version} isn't known")
        tensors, entries = self._count(), self._count()
        metadata = {self._text(): self._value(self._number("I")) for _ in range(entries)}
        shapes = {}
        for _ in range(tensors):
            name, dimensions = self._text(), self._number("I")
            if dimensions > MAX_DIMENSIONS:
                raise ValueError(f"a tensor of {dimensions} dimensions")
            shapes[name] = tuple(self._number("Q") for _ in range(dimensions))
            self._number("I")  # its type
            self._number("Q")  # its place
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str):
            raise ValueError("it names no architecture")  # noqa: TRY004  # of the file
        return GgufHeader(architecture=architecture, metadata=metadata, shapes=shapes)

    def _bytes(self, count: int) -> bytes:
        content = self._file.read(count)
        if len(content) < count:
            raise EOFError("it ends too early")
        return content

    def _number(self, code: str) -> int:
        size = struct.calcsize(f"<{code}")
        number: int = struct.unpack(f"<{code}", self._bytes(size))[0]
        return number

    def _count(self) -> int:
        count = self._number("Q")
        if count > MAX_ENTRIES:
            raise ValueError(f"{count} entries")
        return count

    def _text(self) -> str:
        length = self._number("Q")
        if length > MAX_TEXT_BYTES:
            raise ValueError(f"a text of {length} bytes")
        return self._bytes(length).decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:  # noqa: ANN401  # of any type
        if kind == TEXT:
            return self._text()
        if kind in SCALARS:
            return self._number(SCALARS[kind])
        if kind == LIST:
            return self._list()
        raise ValueError(f"a value of type {kind}")

    def _list(self) -> Any:  # noqa: ANN401  # a list, or a length
        kind, length = self._number("I"), self._number("Q")
        if kind == LIST:
            raise ValueError("a list of lists")
        if length <= LONGEST_LIST:
            return [self._value(kind) for _ in range(length)]
        if kind in SCALARS:
            self._skip(length * struct.calcsize(f"<{SCALARS[kind]}"))
        elif kind == TEXT:
            for _ in range(length):
                self._skip(self._number("Q"))
        else:
            raise ValueError(f"a list of type {kind}")
        return length

    def _skip(self, count: int) -> None:
        """Go on behind so many bytes; beyond the file's end the next read says so."""
        self._file.seek(count, 1)
