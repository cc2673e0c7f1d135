"""The servers that tests start: they answer, and nothing of them stays."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg2  # type: ignore[import-untyped]  # no type information is published
import pytest
import redis
from servers import Postgres, Valkey, family, postgres, some_postgres, some_valkey, valkey

STARTED = """
import sys
sys.path.insert(0, sys.argv[1])
from servers import postgres, valkey
with postgres() as one, valkey() as other:
    print(one.server.folder, one.server._pid, other.server.folder, other.server._pid, flush=True)
    sys.stdin.readline()
"""


def test_postgresql_has_vectors(empty_postgres_url: str) -> None:
    connection = psycopg2.connect(empty_postgres_url)
    cursor = connection.cursor()
    cursor.execute("CREATE EXTENSION vector; SELECT '[1,2]'::vector <-> '[1,2]'::vector")
    assert cursor.fetchone() == (0,)
    connection.close()


def test_each_test_has_an_empty_database(postgres: Postgres) -> None:
    with postgres.database() as one, postgres.database() as other:
        assert one != other


def test_valkey_needs_its_password(valkey: Valkey) -> None:
    assert valkey.server is not None
    address = f"redis://127.0.0.1:{valkey.server.port}/0"
    with redis.Redis.from_url(address) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    with redis.Redis.from_url(valkey.url) as client:
        assert client.ping()


def test_both_come_back_on_the_same_port_after_a_crash() -> None:
    with postgres() as one, valkey() as other:
        for server in (one.server, other.server):
            assert server is not None
            server.kill()
            assert not server.answers(server.port)
            server.start()
            assert server.answers(server.port)


def test_running_servers_are_used_when_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_DATABASE_URL", "postgresql://given/x")
    monkeypatch.setenv("TEST_REDIS_URL", "redis://given/0")
    with some_postgres() as one, some_valkey() as other:
        assert (one.url, one.server) == ("postgresql://given/x", None)
        assert (other.url, other.server) == ("redis://given/0", None)


@pytest.mark.parametrize("how", ["end", "interrupt", "kill"])
def test_nothing_stays_however_the_tests_end(how: str) -> None:
    tests = subprocess.Popen(
        [sys.executable, "-c", STARTED, Path(__file__).parent],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert tests.stdout is not None
    one, pid, other, other_pid = tests.stdout.readline().split()
    processes = [*family(int(pid)), int(other_pid)]
    assert len(processes) > 2
    assert Path(one).exists()
    watched = [os.pidfd_open(number) for number in processes]
    if how == "end":
        tests.communicate("\n", timeout=60)
    else:
        tests.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
        tests.communicate(timeout=60)
    for process in watched:
        ready, _, _ = select.select([process], [], [], 20)
        assert ready
        os.close(process)
    assert wait_gone(Path(one))
    assert wait_gone(Path(other))


def wait_gone(folder: Path) -> bool:
    """Wait for the shell to remove a folder, its last deed."""
    until = time.monotonic() + 20
    while folder.exists() and time.monotonic() < until:
        time.sleep(0.01)  # another process's folder gives no sign
    return not folder.exists()
