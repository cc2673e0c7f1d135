"""Which task a GGUF file is for: what its header says of pooling, attention and a last layer."""

from enum import IntEnum

from app.engines.base import Task
from app.engines.llama_cpp.gguf_header import GgufHeader


class Pooling(IntEnum):
    """What is made of a text's tokens, by llama.cpp's numbers."""

    NONE = 0
    MEAN = 1
    CLS = 2
    LAST = 3
    RANK = 4  # no vector: the number of a cross-encoder


# The layers that make a cross-encoder's number; one of them is enough.
HEADS = ("cls.output.weight", "cls.weight")


def pooling_of(header: GgufHeader) -> Pooling | None:
    """Return what the file says of pooling; None: nothing, or what llama.cpp doesn't know."""
    number = header.get("pooling_type")
    return Pooling(number) if number in list(Pooling) else None


def reads_both_ways(header: GgufHeader) -> bool:
    """Say whether tokens see those behind them, so that no text can be generated."""
    return header.get("attention.causal") is False


def has_head(header: GgufHeader) -> bool:
    """Say whether the file has the layer that makes a cross-encoder's number."""
    return any(name in header.shapes for name in HEADS)


def task_of(header: GgufHeader) -> Task:
    """Return what the file is for; one that says nothing is a chat model."""
    pooling = pooling_of(header)
    if pooling is Pooling.RANK:
        return Task.RANKING
    if pooling or reads_both_ways(header):
        return Task.EMBEDDING
    return Task.CHAT
