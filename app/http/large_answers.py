"""Answers that may be large: made in a thread, in pieces, so that the event loop serves others.

The encoder holds Python's lock while it runs: a whole answer of some hundred thousand numbers would
keep the event loop for a tenth of a second, in a thread too. So each call encodes a piece.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import numpy as np
from fastapi import Response
from pydantic_core import to_json

from app.engines.base import FloatArray

JSON: Final = "application/json"
# Numbers, texts or objects that are encoded in about a millisecond: to tell a thread takes a tenth
# of that.
QUICK_VALUES: Final = 5_000
DECIMALS: Final = 7  # of a float32's


class LargeAnswer(Response):
    """JSON that `large_answer` has made; a route that answers lists in lists answers with it.

    A test holds all routes to that.
    """

    media_type = JSON


async def large_answer(pieces: Callable[[], Iterable[bytes]], *, values: int) -> LargeAnswer:
    """Make an answer of JSON.

    Args:
        pieces: yields it; called in a thread if it is large. Each is to have some hundred values.
        values: about how many numbers, texts and objects it has.

    """

    def content() -> bytes:
        return b"".join(pieces())

    if values <= QUICK_VALUES:
        return LargeAnswer(content())
    return LargeAnswer(await asyncio.to_thread(content))


def fields_of(fields: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield a JSON object; a field that is an iterator has its JSON in pieces already."""
    opening = b"{"
    for name, value in fields.items():
        yield b"%b%b:" % (opening, to_json(name))
        if isinstance(value, Iterator):
            yield from value
        else:
            yield to_json(value)
        opening = b","
    yield b"}"


def list_of(values: Iterable[Any], *, at_once: int = 1) -> Iterator[bytes]:
    """Yield a JSON array, so many values in a piece."""
    return joined(_runs(iter(values), at_once))


def plain(vectors: FloatArray) -> Iterator[list[float]]:
    """Yield vectors, (vectors, dimensions) float32, as lists of numbers."""
    for vector in vectors:
        yield np.round(vector.astype(np.float64), DECIMALS).tolist()


def _runs(values: Iterator[Any], at_once: int) -> Iterator[list[bytes]]:
    while some := list(islice(values, at_once)):
        yield [to_json(some)[1:-1]]


def joined(values: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """Yield a JSON array of values that are in pieces."""
    opening = b"["
    for value in values:
        yield opening
        yield from value
        opening = b","
    yield b"]" if opening == b"," else b"[]"
