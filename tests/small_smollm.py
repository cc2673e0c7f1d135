"""The packaged chat model cut to two layers and the first of its words: it babbles, and is quick.

A vocabulary of byte pairs is in the order in which it was learnt, so that its beginning is one too,
with the special tokens, all bytes, and the commonest words. What a model is held to is enforced
outside it, so that one that says whatever it likes is the harder to hold.
"""

import struct
from pathlib import Path
from typing import BinaryIO

WORDS = 4096
LAYERS = 2
ALIGNMENT = 32
# Bytes of a value, by the format's number of its kind.
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
TEXT, LIST = 8, 9
TOKENS = "tokenizer.ggml.tokens"
LISTS = (TOKENS, "tokenizer.ggml.token_type", "tokenizer.ggml.scores")
MERGES = "tokenizer.ggml.merges"
EMBEDDINGS = ("token_embd.weight", "output.weight")


def write_small(source: Path, target: Path) -> Path:
    """Write a GGUF model with the first of its layers and words alone."""
    with source.open("rb") as file:
        magic, version, tensors, entries = struct.unpack("<4sIQQ", file.read(24))
        head, count = b"", 0
        kept: set[bytes] = set()
        for _ in range(entries):
            head += _value(file, kept)
        found = [_tensor(file) for _ in range(tensors)]
        start = _aligned(file.tell())
        ends = [*(offset for *_, offset in found[1:]), source.stat().st_size - start]
        data = bytearray()
        for (name, shape, kind, offset), end in zip(found, ends, strict=True):
            if name.startswith("blk.") and int(name.split(".")[1]) >= LAYERS:
                continue
            count += 1
            file.seek(start + offset)
            content = file.read(end - offset)
            if name in EMBEDDINGS:
                content = content[: len(content) // shape[1] * WORDS]
                shape[1] = WORDS
            head += _text(name.encode()) + struct.pack("<I", len(shape))
            head += struct.pack(f"<{len(shape)}QIQ", *shape, kind, len(data))
            data += content + bytes(_aligned(len(content)) - len(content))
    head = struct.pack("<4sIQQ", magic, version, count, entries) + head
    target.write_bytes(head + bytes(_aligned(len(head)) - len(head)) + data)
    return target


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def _read_text(file: BinaryIO) -> bytes:
    return file.read(struct.unpack("<Q", file.read(8))[0])


def _value(file: BinaryIO, kept: set[bytes]) -> bytes:
    """Return an entry of the metadata, with the first words alone where it is a list of them."""
    name = _read_text(file)
    (kind,) = struct.unpack("<I", file.read(4))
    head = _text(name) + struct.pack("<I", kind)
    key = name.decode()
    if kind == TEXT:
        return head + _text(_read_text(file))
    if kind != LIST:
        content = file.read(SIZES[kind])
        changed = {"vocab_size": WORDS, "block_count": LAYERS}.get(key.rpartition(".")[2])
        return head + (content if changed is None else struct.pack("<I", changed))
    inner, count = struct.unpack("<IQ", file.read(12))
    items = [_read_text(file) if inner == TEXT else file.read(SIZES[inner]) for _ in range(count)]
    if key in LISTS:
        items = items[:WORDS]
    if key == TOKENS:
        kept.update(items)
    if key == MERGES:  # of two words to one, all of which have to be there
        items = [pair for pair in items if {*pair.split(b" "), pair.replace(b" ", b"")} <= kept]
    content = b"".join(_text(item) if inner == TEXT else item for item in items)
    return head + struct.pack("<IQ", inner, len(items)) + content


def _tensor(file: BinaryIO) -> tuple[str, list[int], int, int]:
    """Return a tensor's name, shape, kind and place."""
    name = _read_text(file).decode()
    (dimensions,) = struct.unpack("<I", file.read(4))
    *shape, kind, offset = struct.unpack(f"<{dimensions}QIQ", file.read(dimensions * 8 + 12))
    return name, shape, kind, offset
