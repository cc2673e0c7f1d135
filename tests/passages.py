"""Documents with vectors for tests: each passage is an angle, which says how far away it is."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from app.db.session import Database
from app.engines.base import FloatArray
from app.features.documents.passages import NewPassage, PassageRepository
from app.features.documents.repository import DocumentRepository, NewDocument

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
SPACE = "minilm@1"


def toward(degrees: float, dimensions: int = 384) -> FloatArray:
    """Return a unit vector; its score with `toward(0)` is the cosine of the angle."""
    vector = np.zeros(dimensions, np.float32)
    vector[:2] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return vector


async def store(  # noqa: PLR0913  # what a document can have
    database: Database,
    angles: Mapping[str, Sequence[float]],
    *,
    collection: int = 0,
    metadata: Callable[[str], dict[str, Any]] = lambda _: {},
    space: str = SPACE,
    dimensions: int = 384,
    length: Callable[[str], float] = lambda _: 1.0,
) -> None:
    """Store documents whose passages have these angles, one character each."""

    def work(session: Session) -> None:
        documents = [
            NewDocument(id=name, text=f"text of {name}", metadata=metadata(name)) for name in angles
        ]
        repository = DocumentRepository(session)
        keys = repository.upsert_many(collection, documents, request_id="r", now=NOW)
        sources = repository.texts(keys)
        made = [
            (
                sources[key],
                [
                    NewPassage(
                        start=n,
                        end=n + 1,
                        vector=toward(angle, dimensions) * np.float32(length(name)),
                    )
                    for n, angle in enumerate(angles[name])
                ],
            )
            for name, key in zip(angles, keys, strict=True)
        ]
        assert all(PassageRepository(session).replace_many(made, space))

    await database.run(work)


async def remove(database: Database, name: str, collection: int = 0) -> None:
    def work(session: Session) -> bool:
        repository = DocumentRepository(session)
        return repository.delete(name, collection=collection, sees_all=False)

    assert await database.run(work)
