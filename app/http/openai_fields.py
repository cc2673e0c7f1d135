"""Which fields of OpenAI's dialect are done here, have no effect, or are refused; and why.

A field of a schema is done unless it is marked; what no schema has is refused. Not the schema
refuses it but the engine: a remote server may have what engines of this process don't.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from app.engines.chat_base import ForeignField
from app.http.openai_schemas import OpenAsSent, OpenPart

OPEN = (OpenPart, OpenAsSent)
MAX_NAME_CHARS = 64  # a field's name comes from the client, and is in the answer


class _Mark:
    """What documents say of a field."""

    def __init__(self, reason: str, kind: str) -> None:
        self.reason = reason
        self._kind = kind

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        described = handler(schema)
        return {**described, "description": f"{self._kind}: {self.reason}."}


class WithoutEffect(_Mark):
    """Marks a field that may have any value and changes nothing, and says why.

    Remote servers get it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason, "Without effect")


class Refused(_Mark):
    """Marks a field that engines of this process don't have.

    Args:
        reason: for the client.
        allowed: values that change nothing.
        reasons: for some of the others.

    """

    def __init__(
        self,
        reason: str,
        *,
        allowed: Sequence[object] = (),
        reasons: Mapping[str, str] | None = None,
    ) -> None:
        values = " and ".join(json.dumps(value) for value in allowed)
        but = f", but for {values}" if allowed else ""
        super().__init__(reason, f"For remote models alone{but}")
        self.allowed = allowed
        self._reasons = reasons or {}

    def allows(self, value: object) -> bool:
        """Say whether a value changes nothing."""
        # To Python 0 is False, and 1 True; to JSON they aren't.
        same = (v for v in self.allowed if isinstance(value, bool) is isinstance(v, bool))
        return value is None or any(value == v for v in same)

    def reason_of(self, value: object) -> str:
        """Return why a value is refused."""
        return self._reasons.get(value, self.reason) if isinstance(value, str) else self.reason


def foreign_fields(part: object, path: str = "") -> Iterator[ForeignField]:
    """Yield the fields of a request, and of what is in it, that engines of this process refuse."""
    if isinstance(part, list):
        for number, item in enumerate(part):
            yield from foreign_fields(item, f"{path}[{number}]")
    if not isinstance(part, OPEN):
        return
    start = f"{path}." if path else ""
    for name, place, mark in _fields(type(part)):
        value = getattr(part, name)
        if mark is not None and not mark.allows(value):
            yield ForeignField(path=start + place, reason=mark.reason_of(value))
        elif isinstance(value, list | OpenPart | OpenAsSent):
            yield from foreign_fields(value, start + place)
    for name, value in (part.model_extra or {}).items():
        if value is not None:
            cut = name[:MAX_NAME_CHARS].encode("utf-8", "replace").decode()
            yield ForeignField(path=start + cut)


def marked(schema: type[BaseModel], kind: type[_Mark]) -> Mapping[str, str]:
    """Return a schema's fields with such a mark, and the reasons."""
    return {
        field.alias or name: mark.reason
        for name, field in schema.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, kind)
    }


def done(schema: type[BaseModel]) -> list[str]:
    """Return a schema's fields without a mark."""
    return [
        field.alias or name
        for name, field in schema.model_fields.items()
        if not any(isinstance(mark, _Mark) for mark in field.metadata)
    ]


@cache
def _fields(schema: type[OpenPart | OpenAsSent]) -> list[tuple[str, str, Refused | None]]:
    """Return a schema's fields: Python's name, JSON's, and the mark of one that is refused."""
    return [
        (
            name,
            field.alias or name,
            next((mark for mark in field.metadata if isinstance(mark, Refused)), None),
        )
        for name, field in schema.model_fields.items()
    ]
