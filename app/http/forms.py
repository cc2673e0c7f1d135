"""Reads the bytes of a form, `multipart/form-data`, as RFC 7578 has it."""

import logging
from collections.abc import Mapping
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import InvalidRequestError, MalformedFormError

FORM = "multipart/form-data"
# It warns of each form that is none; the client is told, and counted by its status.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


def boundary_of(content_type: str) -> bytes | None:
    """Return what separates the parts of a form."""
    _, options = parse_options_header(content_type)
    return options.get(b"boundary") or None


class _Parts:
    """Collects the fields of a form while its parser goes through the body."""

    def __init__(self, max_fields: int) -> None:
        self.fields: dict[str, list[Any]] = {}
        self._left = max_fields

    def begin(self) -> None:
        """Begin a part.

        Raises:
            InvalidRequestError: it is one too many.

        """
        self._left -= 1
        if self._left < 0:
            error = {"loc": ["body"], "msg": "Too many fields", "type": "too_many"}
            raise InvalidRequestError([error])
        self._disposition, self._header, self._value = b"", b"", b""
        self._pieces: list[bytes] = []

    def add_name(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of a header's name."""
        self._header += data[start:end]

    def add_value(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of a header's value."""
        self._value += data[start:end]

    def end_header(self) -> None:
        """Keep the header that names the field."""
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def add_data(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of the content."""
        self._pieces.append(data[start:end])

    def end(self) -> None:
        """Keep the field: bytes of a file, else a text.

        Raises:
            MalformedFormError: it has no name, or its text isn't UTF-8.

        """
        _, options = parse_options_header(self._disposition)
        content = b"".join(self._pieces)
        try:
            name = options[b"name"].decode()
            value = content if b"filename" in options else content.decode()
        except (KeyError, UnicodeDecodeError):
            raise MalformedFormError from None
        self.fields.setdefault(name, []).append(value)


def read_form(body: bytes, boundary: bytes, max_fields: int) -> Mapping[str, list[Any]]:
    """Return a form's fields with their values, in order; blocks for some milliseconds.

    Raises:
        MalformedFormError: it isn't one, or is cut off.
        InvalidRequestError: it has too many fields.

    """
    parts = _Parts(max_fields)
    is_whole = False

    def end() -> None:
        nonlocal is_whole
        is_whole = True

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.begin,
                "on_header_field": parts.add_name,
                "on_header_value": parts.add_value,
                "on_header_end": parts.end_header,
                "on_part_data": parts.add_data,
                "on_part_end": parts.end,
                "on_end": end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise MalformedFormError from None
    if not is_whole:
        raise MalformedFormError
    return parts.fields
