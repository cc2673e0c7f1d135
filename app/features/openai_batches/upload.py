"""Takes a form with a file as it comes: what is in memory is a megabyte, however large the file."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    InvalidRequestError,
    MalformedFormError,
    OverloadedError,
    ServiceError,
)
from app.features.documents.collections import CollectionScope
from app.features.openai_batches.file_schemas import FileForm
from app.features.openai_batches.file_service import FileService
from app.features.openai_batches.files import CHUNK_BYTES
from app.features.openai_batches.metrics import BatchesMetrics
from app.features.openai_batches.values import StoredFile

STORED_BYTES = 4 * CHUNK_BYTES  # in a transaction
PARSED_BYTES = 65_536  # at once: the parser is Python, and holds the event loop
MAX_FIELDS = 16
MAX_FIELD_BYTES = 4_096
FILE = "file"
RETRY_AFTER_S = 5
DISPOSITION = b"content-disposition"


class UploadParser:
    """Parses a form with one file, piece by piece.

    Args:
        boundary: between its parts.

    Attributes:
        fields: the texts in it, by their names.
        filename: the file's; None while there is no file.
        pending: what has come of the file, until it is taken.

    """

    def __init__(self, boundary: bytes) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.pending = bytearray()
        self._is_whole = False
        self._parts = 0
        self._name: str | None = None
        self._header = self._value = self._text = b""
        self._disposition = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._add_name,
                "on_header_value": self._add_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._add_data,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )

    def feed(self, piece: bytes) -> None:
        """Take a piece.

        Raises:
            MalformedFormError: it isn't a form.
            InvalidRequestError: it has too many fields, too long a one, or two files.

        """
        try:
            self._parser.write(piece)
        except FormParserError:
            raise MalformedFormError from None

    def finish(self) -> None:
        """Check that it was whole.

        Raises:
            MalformedFormError: it is cut off.

        """
        if not self._is_whole:
            raise MalformedFormError

    def take(self, size: int) -> bytes:
        """Take so many bytes of the file, or all that are there."""
        taken = bytes(self.pending[:size])
        del self.pending[:size]
        return taken

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_FIELDS:
            raise invalid(FILE, "Too many fields", "too_many")
        self._header = self._value = self._text = self._disposition = b""

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise MalformedFormError

    def _end_header(self) -> None:
        if self._header.lower() == DISPOSITION:
            self._disposition = self._value
        self._header = self._value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        try:
            self._name = options[b"name"].decode()
            filename = options.get(b"filename", b"").decode()
        except (KeyError, UnicodeDecodeError):
            raise MalformedFormError from None
        if self._name == FILE:
            if self.filename is not None:
                raise invalid(FILE, "There may be one file", "too_many")
            self.filename = filename

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE:
            self.pending += data[start:end]
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD_BYTES:
            raise invalid(self._name or "", "Too long", "too_long")

    def _end(self) -> None:
        if self._name is not None and self._name != FILE:
            try:
                self.fields[self._name] = self._text.decode()
            except UnicodeDecodeError:
                raise MalformedFormError from None

    def _finish(self) -> None:
        self._is_whole = True


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadBounds:
    """What uploads may take.

    Args:
        at_once: uploads in this process.
        seconds: that one may take.
        file_bytes: of one file.

    """

    at_once: int
    seconds: float
    file_bytes: int


class Uploads:
    """Stores files while they come.

    Args:
        files: where to.
        bounds: what they may take.
        metrics: where they count.

    """

    def __init__(
        self, files: FileService, *, bounds: UploadBounds, metrics: BatchesMetrics
    ) -> None:
        self._files = files
        self._bounds = bounds
        self._count = metrics.uploads
        self._under_way = 0

    async def store(
        self, pieces: AsyncIterator[bytes], boundary: bytes, *, scope: CollectionScope
    ) -> StoredFile:
        """Store the file of a form, and return it.

        Raises:
            MalformedFormError: the body isn't a form.
            InvalidRequestError: its fields aren't as `FileForm` says, or there is no file.
            BodyTimeoutError: it took too long.
            OverloadedError: too many are under way.
            ServiceError: as `FileService`.

        """
        try:
            stored = await self._admit(pieces, boundary, scope)
        except ServiceError as failure:
            self._count.labels(failure.code).inc()
            raise
        self._count.labels("stored").inc()
        return stored

    async def _admit(
        self, pieces: AsyncIterator[bytes], boundary: bytes, scope: CollectionScope
    ) -> StoredFile:
        if self._under_way >= self._bounds.at_once:
            raise OverloadedError("Too many files are uploaded now.", retry_after_s=RETRY_AFTER_S)
        self._under_way += 1
        try:
            file = await self._files.begin(scope=scope)
            try:
                async with asyncio.timeout(self._bounds.seconds):
                    return await self._receive(file, pieces, UploadParser(boundary))
            except BaseException as failure:
                # What can't be deleted now, retention deletes.
                with suppress(ServiceError):
                    await self._files.discard(file)
                if isinstance(failure, TimeoutError):
                    raise BodyTimeoutError(headers={"Connection": "close"}) from None
                raise
        finally:
            self._under_way -= 1

    async def _receive(
        self, file: StoredFile, pieces: AsyncIterator[bytes], parser: UploadParser
    ) -> StoredFile:
        size = 0
        async for piece in pieces:
            for start in range(0, len(piece), PARSED_BYTES):
                parser.feed(piece[start : start + PARSED_BYTES])
                while len(parser.pending) >= STORED_BYTES:
                    size += STORED_BYTES
                    self._check_size(size)
                    await self._files.append(file, parser.take(STORED_BYTES))
        parser.finish()
        self._check_size(size + len(parser.pending))
        form = FileForm.read(parser.fields)
        if parser.filename is None:
            raise invalid(FILE, "Field required", "missing")
        if not size and not parser.pending:
            raise invalid(FILE, "The file is empty", "too_short")
        await self._files.append(file, parser.take(STORED_BYTES))
        return await self._files.complete(
            file, filename=plain_name(parser.filename), expires_s=form.expires_s
        )

    def _check_size(self, size: int) -> None:
        if size > self._bounds.file_bytes:
            raise BodyTooLargeError(f"The file is larger than {self._bounds.file_bytes} bytes.")


def invalid(field: str, message: str, kind: str) -> InvalidRequestError:
    """Return the error of a field of the form."""
    error: Mapping[str, Any] = {"loc": ["body", field], "msg": message, "type": kind}
    return InvalidRequestError([dict(error)])


def plain_name(filename: str) -> str:
    """Return a file's name without folders, as every database can store it."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    return "".join(c if c.isprintable() else "_" for c in name)[:255] or "upload.jsonl"
