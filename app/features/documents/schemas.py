"""The wire contract of `/documents`."""

import math
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import uuid4

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import to_json

from app.features.documents.repository import Document, NewDocument
from app.models.schemas import KeyCursor, Request, Response, example

MAX_DOCUMENTS = 1_000
MAX_TEXT_CHARS = 100_000
MAX_ID_CHARS = 128
MAX_METADATA_BYTES = 16_384
MAX_METADATA_LEVELS = 5
MAX_PAGE = 100
INT64 = range(-(2**63), 2**63)
DOT_SEGMENTS = (".", "..")
ID = "review:2026-11-22.7"
TEXT = "A film that stays with you for days."
METADATA = {"source": "reviews", "year": 2026, "tags": ["drama"]}
SHOWN = {
    "id": ID,
    "text": TEXT,
    "metadata": METADATA,
    "created_at": "2026-11-22T12:00:00Z",
    "updated_at": "2026-11-22T12:00:00Z",
    "searchable": False,
}


def _addressable(document_id: str) -> str:
    """Refuse ids that no client can request: dot segments of a path are resolved before sending."""
    if document_id in DOT_SEGMENTS:
        raise ValueError("an id that is a step of a path")
    return document_id


def _without_nul(text: str) -> str:
    """Refuse U+0000, which PostgreSQL can't store.

    Not a pattern in the schema: test tools that generate texts from it would take seconds.
    """
    if "\0" in text:
        raise ValueError("a text with U+0000")
    return text


def _storable(metadata: dict[str, Any]) -> dict[str, Any]:
    """Refuse metadata that is too large, or that one of the databases would change."""
    _check([metadata], levels=MAX_METADATA_LEVELS)
    if len(to_json(metadata)) > MAX_METADATA_BYTES:
        raise ValueError(f"more than {MAX_METADATA_BYTES} bytes as JSON")
    return metadata


def _is_double(number: int) -> bool:
    """Say whether it is a float without its exponent: PostgreSQL writes 1e20 so."""
    try:
        return number == Decimal(repr(float(number)))
    except OverflowError:
        return False


def _check(values: Iterable[Any], *, levels: int) -> None:
    for value in values:
        match value:
            case str():
                _without_nul(value)
            case int() if value not in INT64 and not _is_double(value):
                raise ValueError("an integer of more than 64 bits")
            case float() if not math.isfinite(value):
                raise ValueError("a number out of range")
            case dict() | list() if levels == 0:
                raise ValueError(f"more than {MAX_METADATA_LEVELS} levels")
            case dict():
                _check(value, levels=levels - 1)
                _check(value.values(), levels=levels - 1)
            case list():
                _check(value, levels=levels - 1)


DocumentId = Annotated[
    str,
    Field(max_length=MAX_ID_CHARS, pattern=r"^[A-Za-z0-9._:-]+$", examples=[ID]),
    AfterValidator(_addressable),
]


class DocumentRequest(Request):
    """A document to be stored."""

    model_config = ConfigDict(
        json_schema_extra=example({"id": ID, "text": TEXT, "metadata": METADATA})
    )

    id: DocumentId | None = Field(None, description="By it a document is replaced; default: made.")
    text: Annotated[
        str, Field(min_length=1, max_length=MAX_TEXT_CHARS), AfterValidator(_without_nul)
    ] = Field(description="Without U+0000.")
    metadata: Annotated[dict[str, Any], AfterValidator(_storable)] = Field(
        default_factory=dict,
        description=f"What a search can be filtered by: at most {MAX_METADATA_BYTES} bytes of JSON"
        f" in {MAX_METADATA_LEVELS} levels, without U+0000 and integers of more than 64 bits.",
    )

    def new(self) -> NewDocument:
        """Return the document to store; a missing id is generated."""
        return NewDocument(id=self.id or uuid4().hex, text=self.text, metadata=self.metadata)


def _distinct(documents: list[DocumentRequest]) -> list[DocumentRequest]:
    """Refuse the same id twice: one would replace the other."""
    ids = [document.id for document in documents if document.id is not None]
    if len(set(ids)) < len(ids):
        raise ValueError("the same id twice")
    return documents


Documents = Annotated[
    list[DocumentRequest],
    Field(min_length=1, max_length=MAX_DOCUMENTS),
    AfterValidator(_distinct),
]


class DocumentsRequest(Request):
    """Up to 1,000 documents, to be stored all or none."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {"documents": [{"id": ID, "text": TEXT, "metadata": METADATA}, {"text": "Another."}]}
        )
    )

    documents: Documents


class StoredDocuments(Response):
    """The ids of the documents, in their order."""

    model_config = ConfigDict(
        json_schema_extra=example({"ids": [ID, "0b9a0d5e6a5f4f6c8c0e1d2f3a4b5c6d"]})
    )

    ids: list[str]


class DocumentInfo(Response):
    """A stored document."""

    model_config = ConfigDict(json_schema_extra=example(SHOWN))

    id: str
    text: str
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    searchable: bool = Field(description="Whether it has vectors, of some model.")

    @classmethod
    def of(cls, document: Document) -> "DocumentInfo":
        """Return what is shown of a document."""
        return cls(
            id=document.id,
            text=document.text,
            metadata=document.metadata,
            created_at=document.created_at,
            updated_at=document.updated_at,
            searchable=document.is_searchable,
        )


class DocumentList(Response):
    """Documents, newest first."""

    model_config = ConfigDict(json_schema_extra=example({"documents": [SHOWN], "next": "41"}))

    documents: list[DocumentInfo]
    next: str | None = Field(description="`cursor` of the next page; null at the end.")


class DocumentsQuery(BaseModel):
    """Which page."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(20, ge=1, le=MAX_PAGE, description="Documents in the page.")
    cursor: KeyCursor = None
