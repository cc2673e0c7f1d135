"""The sender of webhooks: signed, once normally, again when it failed, for a day."""

import asyncio
import hashlib
import hmac
import json
import logging
import re
import runpy
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import migrated, opened
from openai import InvalidWebhookSignatureError, OpenAI
from receivers import client, receiving
from serving import serving
from sqlalchemy import update
from sqlalchemy.orm import Session
from standardwebhooks import Webhook, WebhookVerificationError

from app.db.session import Database
from app.features.jobs.metrics import JobMetrics
from app.features.jobs.repository import JobRepository
from app.features.jobs.tables import JobRow
from app.features.jobs.values import Job, NewJob
from app.features.jobs.webhooks.sender import DeliveryPolicy, WebhookSender, stored_secret
from app.features.jobs.webhooks.signature import (
    read_secrets,
    sign,
    standard_headers,
    standard_secret,
)

DOCUMENT = Path(__file__).parents[3] / "docs" / "webhooks.md"
NODE = shutil.which("node")
SECRET = "a secret of sixteen"
NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
OPENAI = OpenAI(api_key="none is needed to check a webhook")


@dataclass
class FakeClock:
    """A clock that a test moves."""

    now: datetime = NOW

    def __call__(self, _: Session) -> datetime:
        return self.now


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with migrated(f"sqlite:///{tmp_path / 'test.db'}") as database:
        yield database


def make_sender(database: Database, **options: Any) -> WebhookSender:
    defaults: dict[str, Any] = {
        "client": client(),
        "secrets": (SECRET,),
        "metrics": JobMetrics(),
        "policy": DeliveryPolicy(jitter=0),
        "now": FakeClock(),
    }
    return WebhookSender(database, **(defaults | options))


async def finish(database: Database, url: str, job_id: str = "job_1") -> None:
    """Store a job that has finished now, and whose webhook is due."""
    new = NewJob(
        id=job_id,
        kind="embed",
        collection=7,
        request_id="r-1",
        model="minilm",
        request_hash="hash of the request",
        webhook_url=url,
    )
    ended = {
        "status": "succeeded",
        "total": 3,
        "done": 3,
        "finished_at": NOW,
        "is_announced": True,
        "webhook_status": "pending",
        "webhook_due_at": NOW,
    }

    def work(session: Session) -> None:
        job = JobRepository(session).add(new)
        assert job is not None
        session.execute(update(JobRow).where(JobRow.key == job.key).values(ended))

    await database.run(work)


async def attempt(sender: WebhookSender) -> int:
    """Deliver what is due; return how many that were."""
    claimed = await sender.claim()
    for job in claimed:
        await sender.deliver(job)
    return len(claimed)


async def stored(database: Database, job_id: str = "job_1") -> Job:
    job = await database.read(lambda s: JobRepository(s).by_id(job_id, collection=None))
    assert job is not None
    return job


def attempts(metrics: JobMetrics, outcome: str) -> float:
    return metrics.registry.get_sample_value("mlapi_webhooks_total", {"outcome": outcome}) or 0


async def test_a_finished_job_is_posted_as_get_jobs_shows_it_and_signed(
    database: Database,
) -> None:
    async with receiving() as receiver:
        await finish(database, receiver.url)
        assert await attempt(make_sender(database)) == 1
    got = receiver.got.get_nowait()
    body = json.loads(got.body)
    assert (body["id"], body["status"], body["request_id"]) == ("job_1", "succeeded", "r-1")
    assert body["progress"] == {"done": 3, "total": 3, "failed": 0}
    assert body["webhook"]["attempts"] == 1
    assert b"hash of the request" not in got.body
    # As a library checks it that knows nothing of this service.
    event = OPENAI.webhooks.unwrap(got.body, got.headers, secret=standard_secret(SECRET))
    assert event.id == "job_1"
    with pytest.raises(InvalidWebhookSignatureError):
        OPENAI.webhooks.unwrap(got.body + b" ", got.headers, secret=standard_secret(SECRET))
    # The deprecated headers.
    assert got.headers["X-Webhook-Id"] == "job_1.1"
    assert got.headers["X-Request-ID"] == "r-1"
    sent_at, signature = re.fullmatch(  # type: ignore[union-attr]  # it must match
        r"t=(\d+),v1=([0-9a-f]{64})", got.headers["X-Webhook-Signature"]
    ).groups()
    assert abs(int(sent_at) - time.time()) < 10
    signed = sent_at.encode() + b"." + got.body
    assert signature == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()


async def test_a_delivery_shows_in_the_job_and_is_not_made_again(database: Database) -> None:
    metrics, clock = JobMetrics(), FakeClock()
    sender = make_sender(database, metrics=metrics, now=clock)
    async with receiving(202) as receiver:
        await finish(database, receiver.url)
        assert await attempt(sender) == 1
        clock.now += timedelta(days=2)
        assert await attempt(sender) == 0
    job = await stored(database)
    assert (job.webhook_status, job.webhook_answer, job.webhook_attempts) == ("delivered", "202", 1)
    assert (job.webhook_delivered_at, job.webhook_due_at) == (NOW, None)
    assert attempts(metrics, "delivered") == 1


async def test_what_fails_is_tried_again_with_pauses_that_double(database: Database) -> None:
    metrics, clock = JobMetrics(), FakeClock()
    sender = make_sender(database, metrics=metrics, now=clock)
    async with receiving(500, 302, 404, 503) as receiver:
        await finish(database, receiver.url)
        for pause_s, answer in ((5, "500"), (5, "302"), (10, "404"), (20, "503")):
            assert await attempt(sender) == 1
            job = await stored(database)
            assert (job.webhook_status, job.webhook_answer) == ("pending", answer)
            assert job.webhook_due_at == clock.now + timedelta(seconds=pause_s)
            clock.now += timedelta(seconds=pause_s - 0.001)
            assert await attempt(sender) == 0
            clock.now += timedelta(seconds=0.001)
        assert await attempt(sender) == 1
    job = await stored(database)
    assert (job.webhook_status, job.webhook_attempts) == ("delivered", 5)
    headers = [receiver.got.get_nowait().headers for _ in range(5)]
    assert [each["X-Webhook-Id"] for each in headers] == [f"job_1.{n}" for n in range(1, 6)]
    assert {each["webhook-id"] for each in headers} == {"job_1_20260504030201000000"}
    assert (attempts(metrics, "rejected"), attempts(metrics, "delivered")) == (4, 1)


async def test_a_day_after_the_job_finished_the_webhook_has_failed(database: Database) -> None:
    metrics, clock = JobMetrics(), FakeClock()
    sender = make_sender(database, metrics=metrics, now=clock)
    async with receiving() as receiver:
        pass  # the receiver is closed
    await finish(database, receiver.url)
    while (job := await stored(database)).webhook_due_at is not None:
        clock.now = job.webhook_due_at
        assert await attempt(sender) == 1
    assert (job.webhook_status, job.webhook_answer) == (
        "failed",
        "unreachable: connection refused",
    )
    assert NOW + timedelta(hours=22) < clock.now <= NOW + timedelta(hours=24)
    assert job.webhook_attempts == attempts(metrics, "unreachable") == 34
    clock.now += timedelta(days=365)
    assert await attempt(sender) == 0


async def test_a_target_that_is_refused_is_not_tried_again(database: Database) -> None:
    metrics, clock = JobMetrics(), FakeClock()
    async with receiving() as receiver:
        refusing = client(allow="other.host")
        sender = make_sender(database, client=refusing, metrics=metrics, now=clock)
        await finish(database, receiver.url)
        assert await attempt(sender) == 1
        clock.now += timedelta(hours=1)
        assert await attempt(sender) == 0
    job = await stored(database)
    assert (job.webhook_status, job.webhook_answer) == (
        "failed",
        "refused: not a public address",
    )
    assert (receiver.connections, attempts(metrics, "refused")) == (0, 1)


async def test_an_attempt_that_was_never_recorded_is_made_again(database: Database) -> None:
    clock = FakeClock()
    async with receiving() as receiver:
        await finish(database, receiver.url)
        killed = make_sender(database, now=clock)
        (job,) = await killed.claim()
        await killed._post(job)  # and its process dies before the record
        other = make_sender(database, now=clock)
        assert await attempt(other) == 0
        clock.now += timedelta(seconds=30)
        assert await attempt(other) == 1
    assert receiver.got.qsize() == 2
    assert (await stored(database)).webhook_status == "delivered"


@pytest.mark.parametrize("processes", [4])
async def test_several_processes_deliver_each_webhook_once(
    postgres_url: str, processes: int
) -> None:
    async with migrated(postgres_url) as database, receiving() as receiver:
        for n in range(40):
            await finish(database, receiver.url, f"job_{n}")
        senders = [make_sender(database) for _ in range(processes)]

        async def deliver_all(sender: WebhookSender) -> None:
            while claimed := await sender.claim(5):
                await asyncio.gather(*map(sender.deliver, claimed))

        await asyncio.gather(*map(deliver_all, senders))
        ids = [receiver.got.get_nowait().headers["X-Webhook-Id"] for _ in range(40)]
        assert sorted(ids) == sorted(f"job_{n}.1" for n in range(40))
        assert receiver.got.empty()


async def test_a_running_sender_delivers_by_itself(database: Database) -> None:
    async with receiving() as receiver:
        await finish(database, receiver.url)
        async with make_sender(database).running():
            await asyncio.wait_for(receiver.got.get(), 5)
        # Leaving let the attempt end.
        assert (await stored(database)).webhook_status == "delivered"


async def test_the_service_delivers_to_allowed_hosts_and_to_no_others(
    tmp_path: Path,
) -> None:
    async with receiving() as receiver:
        url = f"sqlite:///{tmp_path / 'data' / 'ml-api.sqlite3'}"
        async with migrated(url) as database:
            await finish(database, receiver.url, "allowed")
            await finish(database, receiver.url.replace("127.0.0.1", "localhost"), "refused")
            hosts = f"127.0.0.1:{receiver.port}"
            async with serving(tmp_path, webhook_allow_hosts=hosts, webhook_secret=SECRET):
                got = await asyncio.wait_for(receiver.got.get(), 10)
                while (await stored(database, "refused")).webhook_status == "pending":
                    await asyncio.sleep(0.01)
            answer = (await stored(database, "refused")).webhook_answer
    assert (answer, receiver.connections) == ("refused: not a public address", 1)
    sent_at = int(got.headers["X-Webhook-Signature"].split(",")[0].removeprefix("t="))
    assert got.headers["X-Webhook-Signature"] == sign(SECRET, got.body, at_s=sent_at)


async def _hang(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def test_a_silent_receiver_holds_up_no_other(database: Database) -> None:
    async with receiving(_hang) as silent, receiving() as receiver:
        await finish(database, silent.url, "slow")
        await finish(database, receiver.url, "quick")
        sender = make_sender(database, client=client(timeout_s=0.3))
        async with sender.running():
            await asyncio.wait_for(silent.got.get(), 5)
            await asyncio.wait_for(receiver.got.get(), 5)
        assert (await stored(database, "quick")).webhook_status == "delivered"
        assert (await stored(database, "slow")).webhook_answer == "timeout"


async def test_a_sender_without_its_database_waits_and_logs_that_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(f"sqlite:///{tmp_path / 'empty.db'}") as empty:
        sender = make_sender(empty)
        with caplog.at_level(logging.WARNING):
            assert [await attempt(sender) for _ in range(3)] == [0, 0, 0]
    records = [line for line in caplog.records if line.message == "webhooks_waiting"]
    assert len(records) == 1


async def test_the_log_has_the_ids_and_the_host_and_nothing_secret(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "httpcore2")  # as the service has it
    caplog.set_level(logging.DEBUG)
    clock = FakeClock()
    sender = make_sender(database, now=clock)
    async with receiving(500) as receiver:
        await finish(database, receiver.url + "/path-token?key=query-token")
        await attempt(sender)
        clock.now += HOUR
        await attempt(sender)
    name = "app.features.jobs.webhooks.sender"
    failed, delivered = (vars(r) for r in caplog.records if r.name == name)
    shared = {"job": "job_1", "request_id": "r-1", "host": "127.0.0.1"}
    assert failed.items() >= (shared | {"msg": "webhook_failed", "answer": "500"}).items()
    assert failed["is_final"] is False
    assert delivered.items() >= (shared | {"msg": "webhook_delivered", "answer": "204"}).items()
    logged = repr([vars(record) for record in caplog.records])
    assert not any(word in logged for word in ("path-token", "query-token", SECRET))


async def test_without_a_setting_all_processes_sign_with_one_secret_of_the_database(
    database_url: str,
) -> None:
    async with migrated(database_url) as database, receiving() as receiver:
        await finish(database, receiver.url)
        (secret,) = set(await asyncio.gather(*(stored_secret(database) for _ in range(8))))
        assert len(secret) >= 43
        assert await attempt(make_sender(database, secrets=())) == 1
        got = receiver.got.get_nowait()
        sent_at = int(got.headers["X-Webhook-Signature"].split(",")[0].removeprefix("t="))
        assert got.headers["X-Webhook-Signature"] == sign(secret, got.body, at_s=sent_at)


@pytest.mark.parametrize(
    ("since_s", "pause_s"),
    [(0, 5), (4, 5), (5, 5), (100, 100), (3_600, 3_600), (80_000, 3_600), (82_800, 3_600)],
)
def test_a_pause_is_as_long_as_the_time_since_the_job_finished(since_s: int, pause_s: int) -> None:
    now = NOW + timedelta(seconds=since_s)
    pause = timedelta(seconds=pause_s)
    policy = DeliveryPolicy()
    assert policy.next(NOW, now, chance=0.5) == now + pause
    if since_s < 80_000:
        assert policy.next(NOW, now, chance=0) == now + 0.8 * pause
        assert policy.next(NOW, now, chance=1) == now + 1.2 * pause


def test_no_attempt_is_made_after_a_day() -> None:
    assert DeliveryPolicy().next(NOW, NOW + timedelta(seconds=82_801), chance=0.5) is None
    assert DeliveryPolicy().next(NOW, NOW + timedelta(days=9), chance=0) is None


# The snippets of docs/webhooks.md, as their readers copy them.

BODY = '{"id":"job_1","said":"höher 😀"}'.encode()
Check = Callable[[str, dict[str, str], bytes], bool]


def snippet(language: str) -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    return str(code)


@pytest.fixture(params=["python", "javascript"])
def is_genuine(request: pytest.FixtureRequest, tmp_path: Path) -> Check:
    if request.param == "python":
        file = tmp_path / "receiver.py"
        file.write_text(snippet("python"), encoding="utf-8")
        check: Check = runpy.run_path(str(file))["is_genuine"]
        return check
    if NODE is None:
        pytest.skip("there is no node on this machine")
    module = tmp_path / "receiver.mjs"
    module.write_text(snippet("javascript"), encoding="utf-8")

    def in_node(secret: str, headers: dict[str, str], body: bytes) -> bool:
        script = f"""
            import {{ isGenuine }} from {json.dumps(module.as_uri())};
            const body = Buffer.from({json.dumps(body.hex())}, "hex");
            console.log(isGenuine({json.dumps(secret)}, {json.dumps(headers)}, body));
        """
        command = [str(NODE), "--input-type=module", "-e", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return bool(json.loads(done.stdout))

    return in_node


async def test_while_the_secret_is_changed_receivers_with_either_accept(database: Database) -> None:
    new, old = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "the-secret-until-now"
    async with receiving() as receiver:
        await finish(database, receiver.url)
        sender = make_sender(database, secrets=read_secrets(f"{new}, {old}"))
        assert await attempt(sender) == 1
        got = await receiver.got.get()
    headers = dict(got.headers)
    for secret in (new, old):
        Webhook(standard_secret(secret)).verify(got.body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(standard_secret("neither-of-the-two")).verify(got.body, headers)
    first, second = headers["webhook-signature"].split(" ")
    alone = {**headers, "webhook-signature": first}
    Webhook(new).verify(got.body, alone)
    assert first != second
    sent_at = int(headers["webhook-timestamp"])
    assert headers["X-Webhook-Signature"] == sign(new, got.body, at_s=sent_at)


@pytest.mark.parametrize(
    ("setting", "secrets"),
    [
        ("a secret of sixteen", ("a secret of sixteen",)),
        ("one-of-16-letters another-16-letter", ("one-of-16-letters", "another-16-letter")),
        ("one-of-16-letters,\nanother-16-letter ,", ("one-of-16-letters", "another-16-letter")),
        ("one-of-16-letters, short", ("one-of-16-letters, short",)),
        ("one-of-16-letters, whsec_short", None),
        ("short whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None),
        (" ".join(["one-of-16-letters"] * 5), None),
        (", , , , , , , , , ", None),
    ],
)
def test_a_setting_has_one_secret_or_several(setting: str, secrets: tuple[str, ...] | None) -> None:
    if secrets is not None:
        assert read_secrets(setting) == secrets
        return
    with pytest.raises(ValueError, match="must") as refused:
        read_secrets(setting)
    assert "letters" not in str(refused.value)
    assert "Mf" not in str(refused.value)


@pytest.mark.parametrize("secret", [SECRET, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
def test_a_receiver_accepts_only_what_the_service_signed(is_genuine: Check, secret: str) -> None:
    now = int(time.time())
    headers = standard_headers((secret,), BODY, message_id="job_1_2", at_s=now)
    given = standard_secret(secret)
    assert is_genuine(given, headers, BODY)
    several = "v1,bm90IG91cnM= " + headers["webhook-signature"]
    assert is_genuine(given, headers | {"webhook-signature": several}, BODY)
    assert not is_genuine(standard_secret("another secret..."), headers, BODY)
    assert not is_genuine(given, headers, BODY + b" ")
    assert not is_genuine(given, headers | {"webhook-timestamp": str(now + 1)}, BODY)
    assert not is_genuine(given, headers | {"webhook-id": "job_1_3"}, BODY)
    old = standard_headers((secret,), BODY, message_id="job_1_2", at_s=now - 301)
    assert not is_genuine(given, old, BODY)
    for forged in ("", "v1", "v1,", "v1,xyz", "nonsense", "v1," + "0" * 44, "v1," + "\u00fc" * 44):
        assert not is_genuine(given, headers | {"webhook-signature": forged}, BODY)
    assert not is_genuine(given, {}, BODY)


def test_the_signature_is_that_of_the_example_in_the_standard() -> None:
    headers = standard_headers(
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",),
        b'{"test": 2432232314}',
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        at_s=1614265330,
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
