"""When webhooks of finished jobs are sent and retried: for a day at most."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from secrets import token_urlsafe
from typing import TYPE_CHECKING

import httpx2
from sqlalchemy.orm import Session

from app.core.background import run_in_background
from app.core.tracing import resumed
from app.db import clock
from app.db.session import Database
from app.features.jobs.metrics import JobMetrics
from app.features.jobs.schemas import JobInfo
from app.features.jobs.values import Job
from app.features.jobs.webhooks.client import TOTAL_S, Answer, Outcome, WebhookClient
from app.features.jobs.webhooks.repository import Attempt, WebhookRepository, WebhookStatus
from app.features.jobs.webhooks.secrets import SecretRepository
from app.features.jobs.webhooks.signature import HEADER, sign, standard_headers

if TYPE_CHECKING:
    from app.core.telemetry import Telemetry

log = logging.getLogger(__name__)

SECRET_NAME = "webhooks"  # noqa: S105  # of the row, not the secret
SECRET_BYTES = 32  # as many as SHA-256 gives; RFC 2104 asks for no fewer
POLL_S = 2.0  # between two queries for webhooks that are due
MAX_DELIVERIES = 16  # at once; a receiver that doesn't answer occupies one for 10 s
MARGIN_S = 20.0  # after an attempt's timeout, for recording it
FINISH_S = 2.0  # at shutdown, for attempts under way; later ones are repeated
Clock = Callable[[Session], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    """When a webhook that wasn't delivered is due again.

    Each pause is as long as the time since the job finished, so pauses double.

    Args:
        shortest_s: the first pause.
        longest_s: no pause is longer.
        give_up_s: after so long the webhook has failed.
        jitter: share by which a pause varies, so that retries don't all come at once.

    """

    shortest_s: float = 5.0
    longest_s: float = 3_600.0
    give_up_s: float = 86_400.0
    jitter: float = 0.2

    def next(self, finished_at: datetime, now: datetime, *, chance: float) -> datetime | None:
        """Return when the next attempt is due; None: there is none. `chance` is in [0, 1)."""
        since_s = (now - finished_at).total_seconds()
        pause_s = min(max(since_s, self.shortest_s), self.longest_s)
        pause_s *= 1 + self.jitter * (2 * chance - 1)
        if since_s + pause_s > self.give_up_s:
            return None
        return now + timedelta(seconds=pause_s)


class WebhookSender:
    """Delivers webhooks as long as the process lives; several processes share the work.

    Each is delivered at least once: one that is killed between the receiver's answer and its
    record is delivered again.

    Args:
        database: where jobs and their webhooks are.
        client: posts.
        secrets: all sign webhooks; none: one is generated once and kept in the database.
        metrics: where attempts are counted.
        policy: when failed attempts are repeated.
        now: returns the time, in a transaction.
        telemetry: continues the traces of the requests that submitted jobs; None: it's off.

    """

    def __init__(  # noqa: PLR0913  # its collaborators, and two values for tests
        self,
        database: Database,
        *,
        client: WebhookClient,
        secrets: Sequence[str],
        metrics: JobMetrics,
        policy: DeliveryPolicy | None = None,
        now: Clock = clock.now,
        telemetry: "Telemetry | None" = None,
    ) -> None:
        self._database = database
        self._client = client
        self._secrets = tuple(secrets)
        self._count = metrics.webhooks
        # Alerts see an increase only of a series that was there before.
        for outcome in Outcome:
            self._count.labels(outcome)
        self._policy = policy or DeliveryPolicy()
        self._now = now
        self._telemetry = telemetry
        self._is_failing = False

    @asynccontextmanager
    async def running(
        self, *, after: Callable[[], Awaitable[object]] | None = None
    ) -> AsyncIterator[None]:
        """Deliver during the block; attempts under way at its end have `FINISH_S` to finish.

        Args:
            after: awaited before the first delivery.

        """
        active: set[asyncio.Task[None]] = set()
        work = partial(self._run, active)
        try:
            async with run_in_background(work, name="webhooks", after=after):
                yield
        finally:
            if active:
                _, late = await asyncio.wait(active, timeout=FINISH_S)
                for delivery in late:
                    delivery.cancel()
                await asyncio.gather(*late, return_exceptions=True)

    async def claim(self, limit: int = MAX_DELIVERIES) -> Sequence[Job]:
        """Claim webhooks that are due; none while the database is away."""
        try:
            if not await self._database.read(self._is_due):
                claimed: Sequence[Job] = []
            else:
                # Nothing can be sent without the secret.
                self._secrets = self._secrets or (await stored_secret(self._database),)
                claimed = await self._database.run(lambda session: self._claim(session, limit))
        except Exception as failure:  # noqa: BLE001  # the next claim may work, and must come
            if not self._is_failing:
                log.warning("webhooks_waiting", extra={"error": type(failure).__name__})
            self._is_failing = True
            return []
        self._is_failing = False
        return claimed

    async def deliver(self, job: Job) -> None:
        """Make one attempt at a claimed webhook, and record it."""
        try:
            answer = await self._post(job)
            self._count.labels(answer.outcome).inc()
            attempt = await self._database.run(lambda session: self._record(session, job, answer))
        except Exception as failure:  # noqa: BLE001  # its claim expires, and it is sent again
            extra = _fields(job) | {"error": type(failure).__name__}
            log.warning("webhook_not_recorded", extra=extra)
            return
        if attempt is not None:
            _log(job, attempt)

    async def _run(self, active: set[asyncio.Task[None]]) -> None:
        while True:
            free = MAX_DELIVERIES - len(active)
            claimed = await self.claim(free) if free else ()
            active.update(asyncio.create_task(self.deliver(job)) for job in claimed)
            if not active:
                await asyncio.sleep(POLL_S)
                continue
            first = asyncio.FIRST_COMPLETED
            done, _ = await asyncio.wait(active, timeout=POLL_S, return_when=first)
            active.difference_update(done)

    async def _post(self, job: Job) -> Answer:
        if job.webhook_url is None or not self._secrets:
            raise ValueError("no webhook was claimed")
        body = JobInfo.of(job).model_dump_json().encode()
        at_s = int(time.time())
        headers = standard_headers(self._secrets, body, message_id=_message_id(job), at_s=at_s) | {
            HEADER: sign(self._secrets[0], body, at_s=at_s),
            "X-Webhook-Id": f"{job.id}.{job.webhook_attempts}",
            "X-Request-ID": job.request_id,
        }
        attributes = {"http.request.method": "POST", "mlapi.job.id": job.id} | {
            "server.address": _fields(job)["host"] or ""
        }
        with resumed(self._telemetry, job.trace, "POST", attributes, kind="client") as trace:
            if trace is not None:
                headers |= trace.headers()
            answer = await self._client.post(job.webhook_url, body, headers)
            if trace is not None and answer.summary.isdecimal():
                trace.note({"http.response.status_code": int(answer.summary)})
            if trace is not None and answer.outcome is not Outcome.DELIVERED:
                trace.fail(answer.outcome.value)
        return answer

    def _is_due(self, session: Session) -> bool:
        return WebhookRepository(session).is_due(self._now(session))

    def _claim(self, session: Session, limit: int) -> Sequence[Job]:
        now = self._now(session)
        until = now + timedelta(seconds=TOTAL_S + MARGIN_S)
        return WebhookRepository(session).claim(now, until=until, limit=limit)

    def _record(self, session: Session, job: Job, answer: Answer) -> Attempt | None:
        """Record an attempt; None when the claim is lost."""
        attempt = self._attempt(job, answer, self._now(session))
        return attempt if WebhookRepository(session).record(job, attempt) else None

    def _attempt(self, job: Job, answer: Answer, now: datetime) -> Attempt:
        if answer.outcome is Outcome.DELIVERED:
            status = WebhookStatus.DELIVERED
            return Attempt(status=status, answer=answer.summary, delivered_at=now)
        due_at = None
        if answer.outcome is not Outcome.REFUSED:
            due_at = self._policy.next(job.finished_at or now, now, chance=random.random())  # noqa: S311  # no secret
        status = WebhookStatus.PENDING if due_at else WebhookStatus.FAILED
        return Attempt(status=status, answer=answer.summary, due_at=due_at)


async def stored_secret(database: Database) -> str:
    """Return the secret for webhooks without WEBHOOK_SECRET; the first call generates it.

    Raises:
        DatabaseUnavailableError: it doesn't answer.

    """
    secret = await database.read(lambda session: SecretRepository(session).get(SECRET_NAME))
    if secret is not None:
        return secret
    new = token_urlsafe(SECRET_BYTES)
    return await database.run(lambda session: SecretRepository(session).keep(SECRET_NAME, new))


def _message_id(job: Job) -> str:
    """Return the id that all attempts share; a job that is retried sends another message."""
    if job.finished_at is None:
        return job.id
    # To the microsecond, which both databases keep.
    return f"{job.id}_{job.finished_at:%Y%m%d%H%M%S%f}"


def _log(job: Job, attempt: Attempt) -> None:
    extra = _fields(job) | {"answer": attempt.answer, "attempt": job.webhook_attempts}
    if attempt.status is WebhookStatus.DELIVERED:
        log.info("webhook_delivered", extra=extra)
    else:
        log.warning("webhook_failed", extra=extra | {"is_final": attempt.due_at is None})


def _fields(job: Job) -> dict[str, str | None]:
    """Return a webhook's log fields; of its URL only the host, since the rest may be secret."""
    try:
        host = httpx2.URL(job.webhook_url or "").raw_host.decode("ascii")
    except httpx2.InvalidURL:
        host = ""
    return {"job": job.id, "request_id": job.request_id, "host": host}
