"""Checks that a model's files exist, are plain files, and have the format of their name.

Libraries open whatever is in a folder: a FIFO would keep them waiting for ever, and they skip a
broken link, so that a model might serve without that file.
"""

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.errors import SourceError, UnsafeModelError

# A model's files: weights in formats without code, and their descriptions.
WEIGHTS = (".safetensors", ".gguf", ".onnx")
DESCRIPTIONS = (".json", ".txt", ".model")
# Weights that an .onnx file leaves to files beside it, as their writers call them.
EXTERNAL_WEIGHTS = (".onnx_data", ".onnx.data")
# A length in 8 bytes, then JSON. A pickle begins with 0x80, a zip around one with "PK".
SAFETENSORS_START = re.compile(rb".{8}\{", re.DOTALL)
SAFETENSORS_START_BYTES = 9
LENGTH_BYTES = 8
# The library's limit.
MAX_SAFETENSORS_HEADER_BYTES = 100_000_000
# The largest vocabularies take a third of it; a damaged or sparse file may be of any size.
MAX_JSON_BYTES = 100_000_000
METADATA = "__metadata__"
GGUF_START = b"GGUF"
# The key of its version, which comes first: a message of Protocol Buffers has no other mark.
ONNX_START = b"\x08"
# JSON that engines read; a folder may hold other files of this format, which aren't opened.
OBJECTS = frozenset(
    {
        "adapter_config.json",
        "added_tokens.json",
        "config.json",
        "config_sentence_transformers.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
)
LIST_OF_OBJECTS = "modules.json"
# sentence_bert_config.json, and what the library calls it for other architectures.
SENTENCE_CONFIG = re.compile(r"sentence_\w+_config\.json")
IN_ITS_PLACE = "put the file in its place, or remove it"
AGAIN = "get the file again"


def find_files(path: Path) -> dict[str, Path]:
    """Return a model's files by their names relative to its folder; "" for a single file.

    Raises:
        SourceError: one of them isn't a file: a broken link, a FIFO, a device, a socket, or a
            folder with the name of a file; or a folder can't be read.

    """
    mode = _mode(path)
    if not stat.S_ISDIR(mode):
        return {"": _file(path, mode)}
    return {str(file.relative_to(path)): file for file in sorted(_walk(path, frozenset()))}


def check_format(file: Path) -> None:
    """Check that a file has the format of its name, as far as that is possible without a library.

    Raises:
        UnsafeModelError: it is in another format.
        SourceError: it can't be read, is cut off, or isn't JSON.

    """
    try:
        if file.suffix == ".safetensors":
            _check_safetensors(file)
        elif file.suffix == ".gguf":
            _check_gguf(file)
        elif file.suffix == ".onnx":
            _check_onnx(file)
        elif file.name == LIST_OF_OBJECTS or _is_object(file.name):
            _check_json(file)
    except OSError as failure:
        raise unreadable(file, failure) from None


def unreadable(path: Path, failure: OSError) -> SourceError:
    """Return the error for a file or folder that can't be read."""
    return SourceError(f"{path}: can't be read: {failure.strerror}; see its rights")


def _walk(folder: Path, parents: frozenset[tuple[int, int]]) -> Iterator[Path]:
    try:
        stats = folder.stat()
        paths = list(folder.iterdir())
    except OSError as failure:
        raise unreadable(folder, failure) from None
    this = (stats.st_dev, stats.st_ino)
    if this in parents:
        return  # a link to one of its parents
    for path in paths:
        mode = _mode(path)
        if stat.S_ISDIR(mode) and path.suffix not in {*WEIGHTS, *DESCRIPTIONS}:
            yield from _walk(path, parents | {this})
        else:
            yield _file(path, mode)


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError as failure:
        if path.is_symlink():
            target = path.readlink()
            message = f"{path}: is a link to {target}, where nothing is: {IN_ITS_PLACE}"
            raise SourceError(message) from None
        raise SourceError(f"{path}: can't be looked at: {failure.strerror}") from None


def _file(path: Path, mode: int) -> Path:
    if not stat.S_ISREG(mode):
        raise SourceError(f"{path}: is {_kind(mode)}, not a file: {IN_ITS_PLACE}")
    return path


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _check_safetensors(file: Path) -> None:
    """Check that a safetensors file is one, and complete."""
    size = file.stat().st_size
    if size < SAFETENSORS_START_BYTES:
        raise SourceError(f"{file}: is cut off, it has {size} bytes: {AGAIN}")
    with file.open("rb") as content:
        if not SAFETENSORS_START.match(content.read(SAFETENSORS_START_BYTES)):
            raise UnsafeModelError(
                f"{file}: is not in the safetensors format, whatever its name says"
            )
        content.seek(0)
        length = int.from_bytes(content.read(LENGTH_BYTES), "little")
        if length > min(size - LENGTH_BYTES, MAX_SAFETENSORS_HEADER_BYTES):
            raise SourceError(f"{file}: is cut off in its header: {AGAIN}")
        tensors = _read_json(file, content.read(length))  # an object: it begins with a brace
    _check_extents(file, tensors, size - LENGTH_BYTES - length)


def _check_extents(file: Path, tensors: dict[str, Any], size: int) -> None:
    """Check that the file has all bytes that its header names."""
    try:
        ends = [int(value["data_offsets"][1]) for key, value in tensors.items() if key != METADATA]
    except (IndexError, KeyError, TypeError, ValueError):
        raise SourceError(f"{file}: its header has a tensor without its place: {AGAIN}") from None
    if max(ends, default=0) > size:
        raise SourceError(f"{file}: is cut off, {max(ends) - size} bytes are missing: {AGAIN}")


def _check_gguf(file: Path) -> None:
    with file.open("rb") as content:
        start = content.read(len(GGUF_START))
    if start != GGUF_START:
        raise UnsafeModelError(f"{file}: is not in the GGUF format, whatever its name says")


def _check_onnx(file: Path) -> None:
    with file.open("rb") as content:
        start = content.read(len(ONNX_START))
    if start != ONNX_START:
        raise UnsafeModelError(f"{file}: is not in the ONNX format, whatever its name says")


def _is_object(name: str) -> bool:
    return name in OBJECTS or SENTENCE_CONFIG.fullmatch(name) is not None


def _check_json(file: Path) -> None:
    with file.open("rb") as opened:
        content = opened.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise SourceError(f"{file}: is larger than {MAX_JSON_BYTES} bytes: {AGAIN}")
    value = _read_json(file, content)
    if file.name == LIST_OF_OBJECTS:
        is_right, expected = isinstance(value, list), "a list of objects"
        is_right = is_right and all(isinstance(each, dict) for each in value)
    else:
        is_right, expected = isinstance(value, dict), "an object"
    if not is_right:
        raise SourceError(f"{file}: is not {expected} in JSON: {AGAIN}")


def _read_json(file: Path, content: bytes) -> Any:  # noqa: ANN401  # any JSON
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError) as failure:
        reason = "not UTF-8" if isinstance(failure, UnicodeDecodeError) else str(failure)
        raise SourceError(f"{file}: can't be read as JSON ({reason}): {AGAIN}") from None
