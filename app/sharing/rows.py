"""Rows as they come back from the engine's process: numbers, or the error in a row's place."""

import json
from array import array
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from app.batching.requests import Row
from app.engines.base import FloatArray
from app.engines.token_windows import TokenRow
from app.errors import ServiceError
from app.sharing.failures import read_failure, write_failure
from app.sharing.frames import LENGTH, LinkError, whole_numbers

FAILED: Final = -1  # instead of how many numbers a row has
NUMBER_BYTES: Final = 4


def pack_rows(rows: Sequence[Row]) -> bytes:
    """Return rows as bytes: how many numbers each has, the numbers, and errors as JSON."""
    sizes = array("i")
    parts: list[bytes] = []
    failures: list[dict[str, Any]] = []
    for row in rows:
        if isinstance(row, Exception):
            sizes.append(FAILED)
            failures.append(write_failure(row))
            continue
        # Where the tokens of a text stand its front end knows.
        numbers = row.logits if isinstance(row, TokenRow) else row
        data = np.asarray(numbers, dtype=np.float32).tobytes()
        sizes.append(len(data) // NUMBER_BYTES)
        parts.append(data)
    if failures:
        parts.append(json.dumps(failures).encode())
    return b"".join((LENGTH.pack(len(sizes)), sizes.tobytes(), *parts))


def unpack_rows(payload: bytes | bytearray) -> list[FloatArray | Exception]:
    """Return what `pack_rows` wrote; each array has one dimension, and may be written to.

    Raises:
        LinkError: it is something else.

    """
    if len(payload) < LENGTH.size:
        raise LinkError("rows are missing")
    (count,) = LENGTH.unpack_from(payload)
    place = LENGTH.size + count * NUMBER_BYTES
    sizes = whole_numbers(payload[LENGTH.size : place])
    if len(sizes) != count:
        raise LinkError("rows are missing")
    rows: list[FloatArray | Exception] = []
    failed: list[int] = []
    for number, size in enumerate(sizes):
        if size == FAILED:
            failed.append(number)
            rows.append(ServiceError())
            continue
        end = place + size * NUMBER_BYTES
        if size < 0 or end > len(payload):
            raise LinkError("numbers of a row are missing")
        rows.append(np.frombuffer(payload[place:end], dtype=np.float32))
        place = end
    for number, failure in zip(failed, _failures(payload[place:], len(failed)), strict=True):
        rows[number] = failure
    return rows


def _failures(data: bytes | bytearray, count: int) -> list[Exception]:
    if not count:
        if data:
            raise LinkError("there is more than the rows")
        return []
    try:
        written = json.loads(data)
        failures = [read_failure(one) for one in written]
    except (ValueError, TypeError, LookupError) as failure:
        raise LinkError("errors can't be read") from failure
    if len(failures) != count:
        raise LinkError("errors are missing")
    return failures
