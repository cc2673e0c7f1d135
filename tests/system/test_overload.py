"""Far more is asked of the service, as a real process, than it can do."""

import socket
from pathlib import Path

import httpx2
import pytest
from process import service
from serving import FAKE

from app.loadtest.addresses import find_address, get_request
from app.loadtest.bench import DEADLINE_HEADER
from app.loadtest.connection import make_target
from app.loadtest.storm import Stage, Storm, measure_stage

pytestmark = pytest.mark.system

COUNT = 20_000
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
MOST_GROWTH_MB = 32
# Eight texts by each of two threads: 320 texts a second, so that the engine is the bound.
SLOW = """
[[models]]
name = "dummy"
engine = "fake"
required = true
fake = { delay_ms = 50 }
"""
# The clients take their part of the same processors; benchmarks/show_storm.py asks for 0.9.
LEAST_SHARE = 0.6


def memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@pytest.mark.alone
def test_a_connection_that_sends_without_waiting_takes_little_memory(tmp_path: Path) -> None:
    with service(tmp_path, FAKE, log_level="warning") as running:
        running.wait_ready()
        before_mb = memory_mb(running.process.pid)
        with socket.create_connection(("127.0.0.1", running.port), 20) as client:
            client.settimeout(2)
            with pytest.raises(TimeoutError):  # nothing is read of what would fill the memory
                client.sendall(GET * COUNT * 50)
            assert httpx2.get(f"{running.url}/health").status_code == 200
            assert memory_mb(running.process.pid) < before_mb + MOST_GROWTH_MB
        assert running.stop() == 0


@pytest.mark.alone
@pytest.mark.parametrize(
    ("is_kept", "patience"),
    [(False, {}), (True, {DEADLINE_HEADER: "1000"})],
    ids=["silent-new", "announced-kept"],
)
def test_a_storm_is_answered_at_the_capacity_and_health_throughout(
    tmp_path: Path, *, is_kept: bool, patience: dict[str, str]
) -> None:
    with service(tmp_path, SLOW, log_level="warning") as running:
        running.wait_ready()
        address = find_address(running.url, may_leave=False)
        storm = Storm(
            target=make_target(f"{running.url}/predict", ["A text."], headers=patience),
            address=address,
            health=address,
            health_request=get_request(f"{running.url}/health"),
            connections=64,
            seconds=3,
            patience_s=1,
        )
        figures = measure_stage(storm, Stage(factor=4, is_kept=is_kept))
        assert figures.health_other == figures.health_unanswered == 0
        assert figures.refused_bare == 0
        assert figures.refused > figures.capacity
        assert figures.share > LEAST_SHARE
        assert figures.p50_after_ms < 2 * figures.p50_before_ms
        assert running.stop() == 0
