"""PostgreSQL's COPY in its binary format: the fastest way to insert many rows of long values."""

import struct
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

# https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
SIGNATURE = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
TRAILER = struct.pack("!h", -1)


def bigint(value: int) -> bytes:
    """Return a field of the type bigint."""
    return struct.pack("!iq", 8, value)


def integer(value: int) -> bytes:
    """Return a field of the type integer."""
    return struct.pack("!ii", 4, value)


def text(value: str) -> bytes:
    """Return a field of the type text."""
    data = value.encode()
    return struct.pack("!i", len(data)) + data


def vector(value: npt.NDArray[np.float32]) -> bytes:
    """Return a field of pgvector's type: its length, two unused bytes, its numbers."""
    data = struct.pack("!HH", len(value), 0) + value.astype(">f4").tobytes()
    return struct.pack("!i", len(data)) + data


def copy_into(
    session: Session, table: str, columns: Sequence[str], rows: Iterable[Sequence[bytes]]
) -> None:
    """Insert rows, as fields in the order of the columns.

    Raises:
        DBAPIError: as SQLAlchemy does for its own statements.

    """
    names = ", ".join(f'"{name}"' for name in columns)
    statement = f"COPY {table} ({names}) FROM STDIN BINARY"
    count = struct.pack("!h", len(columns))
    data = b"".join([SIGNATURE, *(count + b"".join(row) for row in rows), TRAILER])
    connection = session.connection()
    driver: Any = connection.dialect.loaded_dbapi
    cursor: Any = connection.connection.cursor()
    try:
        cursor.copy_expert(statement, BytesIO(data))
    except driver.Error as failure:
        # SQLAlchemy has no COPY, so its handling of a failed statement is repeated here.
        is_gone = connection.dialect.is_disconnect(failure, connection.connection, cursor)
        if is_gone:
            connection.invalidate(failure)
        raise DBAPIError.instance(
            statement, None, failure, driver.Error, connection_invalidated=is_gone
        ) from failure
    finally:
        cursor.close()
