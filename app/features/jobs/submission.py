"""How a submitted job is stored, in one transaction, and when it is refused."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.errors import DocumentNotFoundError, IdempotencyConflictError, TooManyJobsError
from app.features.documents.collections import CollectionScope
from app.features.documents.repository import DocumentRepository, NewDocument
from app.features.documents.service import add_documents
from app.features.jobs.repository import JobRepository
from app.features.jobs.values import Job, NewJob

MISSING_NAMED = 5
TOO_MANY_RETRY_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """A request for a job: ids of stored documents to embed, or new documents.

    `request_hash` tells bodies under the same idempotency key apart.
    """

    doc_ids: Sequence[str] = ()
    documents: Sequence[NewDocument] = ()
    model: str | None = None  # None: the default embedder
    idempotency_key: str | None = None
    webhook_url: str | None = None
    request_id: str
    request_hash: str

    @property
    def total(self) -> int:
        """How many documents it has; one that comes twice is done once."""
        return len(set(self.doc_ids) | {document.id for document in self.documents})


def submit(
    session: Session, *, new: NewJob, request: JobRequest, scope: CollectionScope, max_open: int
) -> tuple[Job, bool]:
    """Store a job with its documents; return it, and whether it is new.

    Raises:
        DocumentNotFoundError: names the first that are missing.
        IdempotencyConflictError: the key was used for another request.
        TooManyJobsError: the caller has too many.

    """
    jobs = JobRepository(session)
    # The job before its documents: of two calls with one key the later stores no documents.
    job = jobs.add(new)
    if job is None:
        known = find_known(
            session,
            idempotency_key=new.idempotency_key or "",
            request_hash=new.request_hash,
            scope=scope,
        )
        if known is None:
            raise IdempotencyConflictError
        return known, False
    check_open_jobs(jobs, new.collection, max_open)  # before 100,000 documents are stored
    filled = jobs.fill(job, _documents(session, request, scope))
    check_open_jobs(jobs, new.collection, max_open, is_last=True)
    return filled, True


def find_known(
    session: Session, *, idempotency_key: str, request_hash: str, scope: CollectionScope
) -> Job | None:
    """Return the job that was submitted with a key; None when there was none.

    Raises:
        IdempotencyConflictError: it was used for another request.

    """
    known = JobRepository(session).by_idempotency_key(scope.collection, idempotency_key)
    if known is not None and known.request_hash != request_hash:
        raise IdempotencyConflictError
    return known


def check_open_jobs(
    jobs: JobRepository, collection: int, max_open: int, *, is_last: bool = False
) -> None:
    """Check that a collection, with the job just added, has no more open jobs than it may.

    `is_last`: nothing follows but the commit. Then the check is exact, and others wait only for it.

    Raises:
        TooManyJobsError: it has more.

    """
    if is_last:
        jobs.lock_collection(collection)
    if jobs.count_open(collection) > max_open:
        raise TooManyJobsError(retry_after_s=TOO_MANY_RETRY_S)


def _documents(session: Session, request: JobRequest, scope: CollectionScope) -> list[int]:
    """Return the keys of a job's documents, in order; new documents are stored."""
    if request.documents:
        return add_documents(
            session,
            documents=request.documents,
            collection=scope.collection,
            request_id=request.request_id,
        )
    keys = DocumentRepository(session).keys_of(
        request.doc_ids, collection=scope.collection, sees_all=scope.sees_all
    )
    missing = [name for name in dict.fromkeys(request.doc_ids) if name not in keys]
    if missing:
        named = ", ".join(map(repr, missing[:MISSING_NAMED]))
        raise DocumentNotFoundError(f"{len(missing)} documents are not there, such as {named}.")
    return [keys[name] for name in request.doc_ids]
