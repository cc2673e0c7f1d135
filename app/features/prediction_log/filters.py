"""Which predictions are meant, and where in the log: filters, positions, and their SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self
from uuid import UUID

from sqlalchemy import Column, Tuple, literal, tuple_

from app.services.prediction_log import EPOCH, ID_BITS, OK, PredictionLogEntry, prediction_id

Judgement = Literal["given", "none", "correct", "wrong"]


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A position in the log; `str` and `parse` make a cursor of it."""

    time: datetime
    id: int

    def __str__(self) -> str:
        return f"{(self.time - EPOCH) // timedelta(microseconds=1)}-{self.id}"

    @classmethod
    def parse(cls, cursor: str) -> Self:
        """Read a cursor.

        Raises:
            ValueError: it isn't a cursor.

        """
        microseconds, _, number = cursor.partition("-")
        if not (microseconds.isdecimal() and number.isdecimal()) or int(number) >> ID_BITS:
            raise ValueError("not a cursor")
        try:
            return cls(EPOCH + timedelta(microseconds=int(microseconds)), int(number))
        except OverflowError:
            raise ValueError("not a cursor") from None

    @classmethod
    def of(cls, prediction: PredictionLogEntry) -> Self:
        """Return a prediction's position."""
        return cls(prediction.time, prediction.id)

    @classmethod
    def named(cls, name: UUID) -> Self | None:
        """Return the position of which `prediction_id` made this name; None if it made no such."""
        microseconds = (name.int >> 80) * 1000 + (name.int >> 64 & 0xFFF)
        try:
            found = cls(EPOCH + timedelta(microseconds=microseconds), name.int & (1 << ID_BITS) - 1)
        except OverflowError:
            return None
        return found if prediction_id(found.time, found.id) == str(name) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which predictions; None means no filter. `since` is included, `until` isn't.

    Without a word only those that were answers: who wants those of shadows says so.
    """

    key_id: int | None = None
    model: str | None = None
    label: str | None = None
    request_id: str | None = None
    version: str | None = None
    status: int | None = None
    error: str | None = None
    feedback: Judgement | None = None
    shadow: bool | None = False
    since: datetime | None = None
    until: datetime | None = None

    def equal(self) -> dict[str, object]:
        """Return columns and the values that they must have, in the order of the indexes."""
        values = {name: getattr(self, name) for name in COLUMNS_OF_FILTERS}
        return {name: value for name, value in values.items() if value is not None}

    def indexed(self) -> list[str]:
        """Return the columns of the index that serves these filters best.

        A request has few rows, and so has an error; a version has many, but one that isn't served
        any more has them far from the newest.
        """
        equal = self.equal()
        for name in ALONE:
            if name in equal and (name != "status" or self.status != OK):
                return [name]
        if self.shadow:
            return []  # their index has no other columns
        return [name for name in equal if name in TOGETHER]

    @property
    def are_failures(self) -> bool:
        """Whether only predictions that failed are meant, which have indexes of their own."""
        return self.error is not None or self.status not in {None, OK}


TOGETHER = ("key_id", "model", "label")
ALONE = ("request_id", "error", "status", "version")
COLUMNS_OF_FILTERS = (*TOGETHER, *ALONE)
NO_FILTERS = Filters()
FIRST = Position(datetime.min.replace(tzinfo=UTC), -1)
LAST = Position(datetime.max.replace(tzinfo=UTC), -1)


def row_of(columns: Sequence[Column[Any]], *values: object) -> Tuple:
    """Return a row value of SQL; each value is bound as its column's type."""
    return tuple_(*(literal(v, column.type) for column, v in zip(columns, values, strict=True)))
