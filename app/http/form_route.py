"""Routes whose body is JSON or a form with files: `multipart/form-data`, as browsers and curl send.

Both become the same object, which the route's schema checks: a form's files are bytes in it.
"""

import asyncio
from typing import Any, ClassVar

from app.errors import InvalidRequestError, MalformedFormError
from app.http.forms import FORM, boundary_of, read_form
from app.http.json_route import JsonRoute, StrictJsonRequest

# A form is parsed in Python; one that is larger would keep other requests waiting.
QUICK_BYTES = 65_536
MAX_DIGITS = 9  # of a number; with more it is none of ours


class FormRequest(StrictJsonRequest):
    """A request whose body is strict JSON, or a form.

    Attributes:
        lists: fields that a form can have several times.
        numbers: fields that are whole numbers, which a form has as text.

    """

    accepted = f"application/json or {FORM}"
    lists: ClassVar[frozenset[str]] = frozenset()
    numbers: ClassVar[frozenset[str]] = frozenset()

    def has_accepted_type(self) -> bool:
        """Say whether `json` can parse a body of the announced type."""
        kind = self.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != FORM:
            return super().has_accepted_type()
        self._form_type = kind
        # FastAPI has a body parsed by `json` only where it is announced as JSON.
        self._headers = self.headers.mutablecopy()
        self._headers["content-type"] = "application/json"
        return True

    async def json(self) -> Any:  # noqa: ANN401  # JSON can be anything
        """Parse the body, once.

        Raises:
            MalformedJsonError, MalformedFormError: it isn't what it is announced as.
            InvalidRequestError: it has too many fields.

        """
        if not hasattr(self, "_form_type"):
            return await super().json()
        if not hasattr(self, "_fields"):
            self._fields = await self._read_form()
        return self._fields

    async def _read_form(self) -> dict[str, Any]:
        body, boundary = await self.body(), boundary_of(self._form_type)
        if boundary is None:
            raise MalformedFormError("The form's Content-Type names no boundary.")
        arguments = body, boundary, self.max_fields
        if len(body) <= QUICK_BYTES:
            fields = read_form(*arguments)
        else:
            fields = await asyncio.to_thread(read_form, *arguments)
        return {name: self._value(name, values) for name, values in fields.items()}

    def _value(self, name: str, values: list[Any]) -> Any:  # noqa: ANN401  # text, number or bytes
        """Return a field's value.

        Raises:
            InvalidRequestError: it came several times, and is no list.

        """
        if name in self.lists:
            return values
        if len(values) > 1:
            error = {"loc": ["body", name], "msg": "Field given more than once", "type": "repeated"}
            raise InvalidRequestError([error])
        (value,) = values
        return _number(value) if name in self.numbers else value


def _number(value: Any) -> Any:  # noqa: ANN401  # the schema refuses what is none
    is_number = isinstance(value, str) and value.isascii() and value.isdigit()
    return int(value) if is_number and len(value) <= MAX_DIGITS else value


class FormRoute(JsonRoute):
    """A route whose body is JSON or a form; a subclass of the request says which fields repeat."""

    request_type = FormRequest
