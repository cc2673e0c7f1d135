"""Webhooks of the real service: a job is submitted, and its receiver hears of it."""

import asyncio
import json
import re
import runpy
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from process import APP, Service, environment, service
from receivers import receiving

pytestmark = pytest.mark.system

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "webhooks.md"
MODELS = """
[[models]]
name = "bytes"
task = "embedding"
engine = "fake"
required = true
default = true
"""
HEARD_S = 60  # a claim that its process took to the grave ends after 30 s


def submit(served: Service, webhook_url: str) -> str:
    """Submit a job; return its id."""
    served.wait_ready()
    asked = {"documents": [{"id": "a", "text": "some text"}], "webhook_url": webhook_url}
    got = httpx2.post(
        f"{served.url}/embed-batch", json=asked, headers={"X-Request-ID": "of-the-submitter"}
    )
    assert got.status_code == 202, got.text
    return str(got.json()["job_id"])


async def settled(served: Service, job_id: str) -> dict[str, Any]:
    """Return what the job tells of its webhook once that is delivered, or has failed."""
    async with asyncio.timeout(HEARD_S):
        while True:
            webhook = httpx2.get(f"{served.url}/jobs/{job_id}").json()["webhook"]
            if webhook["status"] in {"delivered", "failed"}:
                return dict(webhook)
            await asyncio.sleep(0.05)


def printed_secret(folder: Path) -> str:
    """Ask the command line what webhooks are signed with."""
    return subprocess.run(
        [APP, "jobs", "secret", "--standard"],
        env=environment(folder),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()


def is_genuine(secret: str, headers: dict[str, str], body: bytes, folder: Path) -> bool:
    """Ask the snippet of the documentation."""
    found = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    receiver = folder / "receiver.py"
    receiver.write_text(found[1], encoding="utf-8")
    return bool(runpy.run_path(str(receiver))["is_genuine"](secret, headers, body))


async def test_a_receiver_hears_of_a_finished_job_and_can_tell_who_said_so(tmp_path: Path) -> None:
    async with receiving() as receiver:
        with service(tmp_path, MODELS, jobs="on", webhook_allow_hosts="127.0.0.1") as served:
            job_id = submit(served, receiver.url + "?token=private")
            got = await asyncio.wait_for(receiver.got.get(), HEARD_S)
            webhook = await settled(served, job_id)
            assert served.stop() == 0
    told = json.loads(got.body)
    assert (told["id"], told["status"], told["result"]["embedded"]) == (job_id, "succeeded", 1)
    assert got.headers["X-Request-ID"] == told["request_id"] == "of-the-submitter"
    assert (webhook["status"], webhook["attempts"], webhook["answer"]) == ("delivered", 1, "204")
    secret = printed_secret(tmp_path)
    assert is_genuine(secret, got.headers, got.body, tmp_path)
    assert not is_genuine("whsec_AAAA", got.headers, got.body, tmp_path)
    assert "webhook_delivered" in served.log
    assert "private" not in served.log
    assert secret not in served.log


async def test_a_job_can_t_make_the_service_call_its_own_machine(tmp_path: Path) -> None:
    async with receiving() as receiver:
        with service(tmp_path, MODELS, jobs="on") as served:
            for host in ("127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0"):
                job_id = submit(served, f"http://{host}:{receiver.port}/")
                webhook = await settled(served, job_id)
                assert (webhook["status"], webhook["attempts"]) == ("failed", 1)
                assert webhook["answer"] == "refused: not a public address"
            metrics = httpx2.get(f"{served.url}/metrics").text
            assert 'mlapi_webhooks_total{outcome="refused"} 5.0' in metrics
            served.stop()
    assert receiver.connections == 0


async def test_a_service_that_is_killed_before_it_records_a_delivery_makes_it_again(
    tmp_path: Path,
) -> None:
    async def hold(_: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    settings = {"jobs": "on", "webhook_allow_hosts": "127.0.0.1"}
    async with receiving(hold) as receiver:
        with service(tmp_path, MODELS, **settings) as served:
            job_id = submit(served, receiver.url)
            first = await asyncio.wait_for(receiver.got.get(), HEARD_S)
            served.stop(signal.SIGKILL)
        killed_s = time.monotonic()
        with service(tmp_path, MODELS, **settings) as served:
            again = await asyncio.wait_for(receiver.got.get(), HEARD_S)
            print(f"heard again {time.monotonic() - killed_s:.0f} s after the kill")
            webhook = await settled(served, job_id)
            served.stop()
    assert json.loads(first.body)["finished_at"] == json.loads(again.body)["finished_at"]
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    assert [first.headers["X-Webhook-Id"], again.headers["X-Webhook-Id"]] == [
        f"{job_id}.1",
        f"{job_id}.2",
    ]
    assert (webhook["status"], webhook["attempts"]) == ("delivered", 2)
