"""The notifier, and how workers take its messages, on a real Valkey."""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import redis
from celery import Celery
from kombu import Connection, Queue
from servers import Valkey, free_port, valkey
from serving import make_app, running

from app.features.jobs.acknowledgement import RaisingMessage, raise_failed_acknowledgements
from app.features.jobs.celery import QUEUE, make_celery
from app.features.jobs.metrics import JobMetrics
from app.features.jobs.notifier import CeleryNotifier

LATE_S = 10.0
MODELS = """
[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
default = true
"""


@pytest.fixture(scope="module")
def broker() -> Iterator[Valkey]:
    """One for this file: the queue has one name, and other tests notify too."""
    with valkey() as server:
        yield server


@pytest.fixture
def client(broker: Valkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker.url) as client:
        client.flushall()
        yield client


def failures(metrics: JobMetrics) -> float | None:
    return metrics.registry.get_sample_value("mlapi_bell_failures_total")


def queued(client: redis.Redis) -> int:
    return cast("int", client.llen(QUEUE))  # its type allows for the asynchronous client


async def heard(client: redis.Redis, count: int) -> None:
    async with asyncio.timeout(LATE_S):
        while queued(client) < count:
            await asyncio.sleep(0.01)  # another thread sends, without an event to wait for


async def test_a_notification_is_a_message_without_content(
    broker: Valkey, client: redis.Redis
) -> None:
    notifier = CeleryNotifier(broker.url, metrics=JobMetrics())
    await notifier.notify()
    await heard(client, 1)
    notifier.close()
    with Connection(broker.url) as connection:
        message = Queue(QUEUE, channel=connection.default_channel).get(no_ack=True)
        assert message is not None
        args, kwargs, _ = message.payload
        assert (message.headers["task"], args, kwargs) == ("mlapi.work", [], {})
        assert message.content_type == "application/json"


async def test_notifications_before_one_is_sent_are_one(
    broker: Valkey, client: redis.Redis
) -> None:
    notifier = CeleryNotifier(broker.url, metrics=JobMetrics())
    notifier.notify_now()  # once connected, sending takes a moment
    for _ in range(100):
        await notifier.notify()  # without giving other tasks a turn in between
    await heard(client, 2)
    await notifier.notify()
    await heard(client, 3)  # the thread is through with all that came before
    notifier.close()
    assert queued(client) <= 4


async def test_messages_that_no_worker_takes_are_bounded(
    broker: Valkey, client: redis.Redis
) -> None:
    notifier = CeleryNotifier(broker.url, metrics=JobMetrics(), max_messages=3)
    for _ in range(5):
        notifier.notify_now()
    notifier.close()
    assert queued(client) == 3


def test_a_broker_that_is_away_is_counted_and_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "logThreads", True)  # a service of another test may not log them
    metrics = JobMetrics()
    notifier = CeleryNotifier(f"redis://:secret@127.0.0.1:{free_port()}/0", metrics=metrics)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            notifier.notify_now()
    notifier.close()
    assert not notifier.is_reachable
    assert failures(metrics) == 2
    # A message of another test's service may still be failing in its own thread.
    mine = [r for r in caplog.records if r.thread == threading.get_ident()]
    (record,) = [r for r in mine if r.message == "bell_not_heard"]
    assert "secret" not in str(vars(record))


def test_a_broker_that_comes_back_gets_messages_again() -> None:
    with valkey() as mine:
        assert mine.server is not None
        notifier = CeleryNotifier(mine.url, metrics=JobMetrics())
        mine.server.kill()
        notifier.notify_now()
        assert not notifier.is_reachable
        mine.server.start()
        notifier.notify_now()
        notifier.close()
        assert notifier.is_reachable
        with redis.Redis.from_url(mine.url) as client:
            assert queued(client) == 1


async def test_a_service_whose_broker_is_away_takes_jobs_and_says_so(tmp_path: Path) -> None:
    with valkey() as mine:
        assert mine.server is not None
        app = make_app(tmp_path, MODELS, jobs="on", redis_url=mine.url)
        async with running(app) as client:

            async def submit() -> int:
                body = {"documents": [{"id": "a", "text": "some text"}]}
                return (await client.post("/embed-batch", json=body)).status_code

            async def is_degraded() -> bool:
                return "jobs:broker" in (await client.get("/ready")).json()["degraded"]

            assert await submit() == 202
            assert not await is_degraded()
            mine.server.kill()
            assert await submit() == 202
            async with asyncio.timeout(LATE_S):
                while not await is_degraded():
                    await asyncio.sleep(0.05)  # until the notifier's thread has given up
            mine.server.start()
            assert await submit() == 202
            async with asyncio.timeout(LATE_S):
                while await is_degraded():
                    await asyncio.sleep(0.05)
            assert len((await client.get("/jobs")).json()["jobs"]) == 3


async def test_closing_a_notifier_does_not_wait_for_the_broker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # is connected to, and never answers
        notifier = CeleryNotifier(
            f"redis://127.0.0.1:{silent.getsockname()[1]}/0",
            metrics=JobMetrics(),
        )
        await notifier.notify()
        async with asyncio.timeout(1):
            await asyncio.to_thread(notifier.close)


def test_an_acknowledgement_that_the_broker_does_not_get_is_an_error() -> None:
    """What Celery would only log, and then wait for ever."""
    raise_failed_acknowledgements()
    with valkey() as mine:
        assert mine.server is not None
        CeleryNotifier(mine.url, metrics=JobMetrics()).notify_now()
        with Connection(mine.url, transport_options={"socket_timeout": 1}) as connection:
            message = Queue(QUEUE, channel=connection.default_channel).get()
            assert isinstance(message, RaisingMessage)
            mine.server.kill()
            with pytest.raises(connection.connection_errors):  # what Celery connects again after
                message.ack_log_error(logging.getLogger(), errors=connection.connection_errors)


@pytest.mark.parametrize(
    ("url", "broker_url", "checks_certificates"),
    [
        ("redis://h:1/2", "redis://h:1/2", False),
        ("unix:///run/v.sock", "redis+socket:///run/v.sock", False),
        ("rediss://h:1/2", "rediss://h:1/2", True),
        ("rediss://h:1/2?ssl_cert_reqs=CERT_NONE", "rediss://h:1/2?ssl_cert_reqs=CERT_NONE", False),
    ],
)
def test_addresses_are_given_in_celery_s_spelling(
    url: str, broker_url: str, *, checks_certificates: bool
) -> None:
    celery: Celery = make_celery(url)
    assert celery.conf.broker_url == broker_url
    assert bool(celery.conf.broker_use_ssl) is checks_certificates


def test_work_is_acknowledged_late_and_taken_one_by_one() -> None:
    conf = make_celery("redis://h:1/2").conf
    assert (conf.task_acks_late, conf.task_reject_on_worker_lost) == (True, True)
    assert (conf.worker_prefetch_multiplier, conf.worker_concurrency) == (1, 1)
    assert conf.accept_content == ["json"]
    assert conf.task_time_limit < conf.broker_transport_options["visibility_timeout"]
