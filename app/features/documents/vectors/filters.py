"""Conditions on the metadata of documents, with the same meaning in both databases.

Types are never mixed: a number matches no string, and true is not 1. 1 equals 1.0. Strings are
compared by code points. A field that a document lacks matches nothing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any, Literal

from sqlalchemy import ColumnElement, Text, and_, case, cast, func, literal, or_, select
from sqlalchemy.dialects.postgresql import JSONB

from app.features.documents.tables import DocumentRow

Scalar = str | int | float | bool | None
Bound = Literal["gt", "gte", "lt", "lte"]

COMPARE: Mapping[Bound, Callable[[Any, Any], Any]] = {"gt": gt, "gte": ge, "lt": lt, "lte": le}
SQLITE_NUMBERS = ("integer", "real")
SQLITE_TEXTS = ("text",)


@dataclass(frozen=True, slots=True)
class OneOf:
    """The field has one of these values."""

    field: str
    values: Sequence[Scalar]


@dataclass(frozen=True, slots=True)
class Range:
    """The field is within bounds, which are all numbers or all strings."""

    field: str
    bounds: Mapping[Bound, int | float | str]

    @property
    def is_text(self) -> bool:
        """Whether the bounds are strings."""
        return any(isinstance(value, str) for value in self.bounds.values())


# All of them must hold.
Filter = Sequence[OneOf | Range]


def conditions(parts: Filter, dialect: str) -> list[ColumnElement[bool]]:
    """Return a filter as conditions on `DocumentRow`; values are bound, never part of the SQL."""
    if dialect == "sqlite":
        return [_sqlite(condition) for condition in parts]
    return [_postgres(condition) for condition in parts]


def _postgres(condition: OneOf | Range) -> ColumnElement[bool]:
    # Without the cast PostgreSQL can't tell a name from an index into an array.
    name = cast(condition.field, Text)
    field: ColumnElement[Any] = DocumentRow.meta.op("->", return_type=JSONB())(name)
    if isinstance(condition, OneOf):
        # Equality of jsonb respects types, and compares numbers by value.
        return field.in_([_jsonb(value) for value in condition.values])
    kind = func.jsonb_typeof(field)
    if condition.is_text:
        # jsonb itself would compare strings by the database's locale.
        string: ColumnElement[str] = DocumentRow.meta.op("->>", return_type=Text())(name)
        return and_(*_within(case((kind == "string", string)).collate("C"), condition.bounds))
    bounds = {bound: _jsonb(value) for bound, value in condition.bounds.items()}
    return and_(kind == "number", *_within(field, bounds))


def _jsonb(value: Scalar) -> ColumnElement[Any]:
    return cast(literal(json.dumps(value), Text), JSONB)


def _sqlite(condition: OneOf | Range) -> ColumnElement[bool]:
    # Not by a path (`$."name"`): names in it need escaping, and it doesn't match names that are
    # escaped in the stored document.
    field = func.json_each(DocumentRow.meta).table_valued("key", "type", "value")
    kind, value = field.c.type, field.c.value
    if isinstance(condition, Range):
        types = SQLITE_TEXTS if condition.is_text else SQLITE_NUMBERS
        holds = and_(kind.in_(types), *_within(value, condition.bounds))
    else:
        texts = [v for v in condition.values if isinstance(v, str)]
        numbers = [v for v in condition.values if type(v) in {int, float}]
        names = [json.dumps(v) for v in condition.values if v is None or isinstance(v, bool)]
        holds = or_(
            and_(kind.in_(SQLITE_TEXTS), value.in_(texts)),
            and_(kind.in_(SQLITE_NUMBERS), value.in_(numbers)),
            kind.in_(names),
        )
    return select(1).select_from(field).where(field.c.key == condition.field, holds).exists()


def _within(value: ColumnElement[Any], bounds: Mapping[Bound, Any]) -> list[ColumnElement[bool]]:
    return [COMPARE[bound](value, limit) for bound, limit in bounds.items()]
