"""Texts as they cross to the engine's process: their tokens, as whole numbers of 32 bits."""

from array import array
from collections.abc import Sequence
from typing import Final, cast

import numpy as np

from app.engines.base import Encoded
from app.engines.items import Prepared
from app.engines.token_windows import TokenText
from app.sharing.frames import LinkError, whole_numbers

PLAIN: Final = 0
WINDOWS: Final = 1


def pack_items(items: Sequence[Prepared]) -> bytes:
    """Return texts as bytes."""
    numbers = array("i")
    for item in items:
        if isinstance(item, TokenText):
            numbers.extend((WINDOWS, len(item.windows), item.before, len(item.offsets)))
            for start, window in zip(item.starts, item.windows, strict=True):
                _put(numbers, start, window)
        else:
            text = cast("Encoded", item)
            numbers.extend((PLAIN, text.is_truncated))
            _put(numbers, text.left_out, text)
    return numbers.tobytes()


def _put(numbers: "array[int]", first: int, text: Encoded) -> None:
    numbers.extend((first, len(text.token_ids), len(text.type_ids)))
    numbers.extend(text.token_ids)
    numbers.extend(text.type_ids)


def unpack_items(data: bytes | bytearray, count: int) -> list[Encoded]:
    """Return the texts that `pack_items` wrote.

    Raises:
        LinkError: it is something else.

    """
    reader = _Reader(whole_numbers(data))
    items: list[Encoded] = []
    for _ in range(count):
        if reader.next() == PLAIN:
            is_truncated = bool(reader.next())
            left_out, ids, types = reader.text()
            items.append(
                Encoded(token_ids=ids, is_truncated=is_truncated, type_ids=types, left_out=left_out)
            )
        else:
            items.append(_windowed(reader))
    reader.end()
    return items


def _windowed(reader: "_Reader") -> TokenText:
    """Return a text in windows; where its tokens stand in it only the front end knows."""
    count, before, tokens = reader.next(), reader.next(), reader.next()
    windows, starts = [], []
    for _ in range(count):
        start, ids, types = reader.text()
        starts.append(start)
        windows.append(Encoded(token_ids=ids, is_truncated=False, type_ids=types))
    return TokenText(
        token_ids=[index for window in windows for index in window.token_ids],
        is_truncated=False,
        windows=tuple(windows),
        starts=tuple(starts),
        before=before,
        offsets=np.zeros((tokens, 2), dtype=np.int64),
        is_subword=np.zeros(tokens, dtype=np.bool_),
    )


class _Reader:
    """Reads numbers one behind the other."""

    def __init__(self, numbers: "array[int]") -> None:
        self._numbers = numbers
        self._place = 0

    def next(self) -> int:
        """Return the next number, which is never negative."""
        if self._place >= len(self._numbers) or self._numbers[self._place] < 0:
            raise LinkError("a number is missing")
        self._place += 1
        return self._numbers[self._place - 1]

    def text(self) -> tuple[int, list[int], list[int]]:
        """Return what stands before the tokens of a text, the tokens, and their types."""
        first, ids, types = self.next(), self.next(), self.next()
        middle, end = self._place + ids, self._place + ids + types
        if end > len(self._numbers):
            raise LinkError("tokens are missing")
        found = self._numbers[self._place : middle].tolist(), self._numbers[middle:end].tolist()
        self._place = end
        return first, *found

    def end(self) -> None:
        """Check that there is nothing more."""
        if self._place != len(self._numbers):
            raise LinkError("there are more numbers than texts")
