"""Far more is asked of the service, as a real process, than it can do."""

import socket
from pathlib import Path

import httpx2
import pytest
from process import service
from serving import FAKE

pytestmark = pytest.mark.system

COUNT = 20_000
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
MOST_GROWTH_MB = 32


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
