"""The documents of a job, batch by batch: read and cut into passages, and stored with vectors."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from sqlalchemy.orm import Session

from app.db.session import Database
from app.engines.base import FloatArray
from app.errors import EngineError, ServiceError
from app.features.documents.chunks import Span
from app.features.documents.passages import NewPassage, PassageRepository
from app.features.documents.repository import DocumentRepository, Source
from app.features.jobs.leases import JobLeases
from app.features.jobs.policy import LeaseLostError
from app.features.jobs.values import Item, ItemOutcome, ItemState, Job

Row = FloatArray | ServiceError
# A long document has hundreds of passages, and each costs PostgreSQL's index milliseconds.
STORE_TIMEOUT_S = 60.0


class JobEmbedder(Protocol):
    """An embedder of jobs; `is_broken`: this process can't use the model any more."""

    is_broken: bool

    @property
    def space(self) -> str:
        """Which vectors can be compared with its own."""
        ...

    def spans(self, text: str) -> list[Span]:
        """Cut a text into passages that fit into the model's window."""
        ...

    async def embed(self, texts: Sequence[str]) -> list[Row]:
        """Return a vector for each text, as the index compares it, or its error."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchBounds:
    """The limits of one commit.

    Args:
        documents: at most.
        chars: at most, unless a single document has more; some 10,000 tokens, which take a second
            on two cores, so that progress shows and a cancelled job stops soon.
        cut_s: timeout of cutting them into passages, which normally takes 0.1 s.

    """

    documents: int = 128
    chars: int = 40_000
    cut_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Documents that are committed together; deleted ones have no source."""

    items: Sequence[Item]
    sources: dict[int, Source]  # by the document's key
    spans: dict[int, list[Span]]

    def texts(self) -> list[str]:
        """Return all passages, document after document."""
        return [
            self.sources[key].text[span.start : span.end]
            for key, spans in self.spans.items()
            for span in spans
        ]


class JobBatches:
    """Goes through the waiting documents of a job.

    Args:
        database: has the documents.
        job: as it was claimed.
        lease: token of the claim.
        bounds: of a batch.

    """

    def __init__(self, database: Database, job: Job, *, lease: str, bounds: BatchBounds) -> None:
        self._database = database
        self._job = job
        self._lease = lease
        self._bounds = bounds
        self._after = -1

    async def next(self, embedder: JobEmbedder) -> Batch | None:
        """Read the next documents and cut them into passages; None when this round is over.

        Raises:
            EngineError: the tokeniser hangs.
            DatabaseUnavailableError: the documents can't be read.

        """
        read = partial(_read, key=self._job.key, after=self._after, limit=self._bounds.documents)
        items, sources = await self._database.read(read)
        kept = self._fitting(items, sources)
        if not kept:
            return None
        self._after = kept[-1].ordinal
        try:
            async with asyncio.timeout(self._bounds.cut_s):
                return await asyncio.to_thread(_cut, kept, sources, embedder)
        except TimeoutError:
            embedder.is_broken = True  # the thread can't be stopped
            raise EngineError("The tokeniser hangs.") from None

    def start_again(self) -> bool:
        """Begin another round, for documents that changed meanwhile; False if this one was empty.

        Only a round without any document shows that none waits any more.
        """
        was_empty = self._after == -1
        self._after = -1
        return not was_empty

    async def commit(
        self, batch: Batch, rows: Sequence[Row], *, space: str
    ) -> Sequence[ItemOutcome]:
        """Store a batch's vectors and the job's progress in one transaction.

        Args:
            batch: from `next`.
            rows: of `batch.texts()`.
            space: the embedder's.

        Raises:
            LeaseLostError: the job is another worker's now, or cancelled; nothing was stored.

        """
        rest = iter(rows)
        vectors = {key: [(s, next(rest)) for s in spans] for key, spans in batch.spans.items()}
        store = partial(
            _store, batch=batch, vectors=vectors, space=space, key=self._job.key, lease=self._lease
        )
        return await self._database.run(store, timeout_s=STORE_TIMEOUT_S)

    def _fitting(self, items: Sequence[Item], sources: dict[int, Source]) -> list[Item]:
        """Return the first items, as many as a batch takes."""
        kept: list[Item] = []
        chars = 0
        for item in items:
            source = sources.get(item.document_key)
            chars += len(source.text) if source else 0
            if kept and chars > self._bounds.chars:
                break
            kept.append(item)
        return kept


def _cut(items: Sequence[Item], sources: dict[int, Source], embedder: JobEmbedder) -> Batch:
    keys = [item.document_key for item in items if item.document_key in sources]
    return Batch(
        items=items,
        sources={key: sources[key] for key in keys},
        spans={key: embedder.spans(sources[key].text) for key in keys},
    )


def _read(
    session: Session, *, key: int, after: int, limit: int
) -> tuple[list[Item], dict[int, Source]]:
    items = JobLeases(session).items(key, after=after, limit=limit)
    return items, DocumentRepository(session).texts([item.document_key for item in items])


def _store(
    session: Session,
    *,
    batch: Batch,
    vectors: dict[int, list[tuple[Span, Row]]],
    space: str,
    key: int,
    lease: str,
) -> list[ItemOutcome]:
    """Store the vectors of documents that have all, and return each document's outcome."""
    failures: dict[int, str] = {}
    passages: dict[int, list[NewPassage]] = {}
    for document, rows in vectors.items():
        passages[document] = []
        for span, row in rows:
            if isinstance(row, ServiceError):
                failures[document] = row.code
            else:
                new = NewPassage(start=span.start, end=span.end, vector=row)
                passages[document].append(new)
    good = [(batch.sources[key], passages[key]) for key in passages if key not in failures]
    stored = PassageRepository(session).replace_many(good, space)
    current = {source.key for (source, _), is_stored in zip(good, stored, strict=True) if is_stored}
    outcomes = [
        outcome
        for item in batch.items
        if (outcome := _outcome(item, batch, failures=failures, current=current))
    ]
    if not JobLeases(session).record(key, lease=lease, outcomes=outcomes):
        raise LeaseLostError
    return outcomes


def _outcome(
    item: Item, batch: Batch, *, failures: dict[int, str], current: set[int]
) -> ItemOutcome | None:
    """Return a document's outcome; None: its text has changed, it waits for the next round."""
    document = item.document_key
    if document not in batch.sources:
        return ItemOutcome(item.ordinal, ItemState.SKIPPED)
    if document in failures:
        return ItemOutcome(item.ordinal, ItemState.FAILED, failures[document])
    return ItemOutcome(item.ordinal, ItemState.DONE) if document in current else None
