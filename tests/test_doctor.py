"""`app doctor`, as a process, on what is right and on what is wrong."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import run
from converted import CONVERTED
from process import UNMEASURED
from servers import Postgres, Valkey, free_port
from serving import AllSettings

from app.doctor import machine, parts
from app.features.access.findings import findings

REMOTE = """
[[models]]
name = "m"
task = "chat"
engine = "remote"
source = "openai:x"
api_key_env = "NO_SUCH_KEY"
"""
FAKE = '[[models]]\nname = "dummy"\nengine = "fake"\nrequired = true\n'
SECRET = "a secret that nobody may see"


# A model is loaded in a process of its own, which takes most of a second.
UNTRIED = ("--load-timeout", "0")


def doctor(
    folder: Path, models: str = FAKE, *options: str, **settings: Any
) -> tuple[int, dict[str, list[Any]]]:
    """Run it; return its status, and its findings by place."""
    (folder / "models.toml").write_text(models)
    values: dict[str, Any] = {
        "models_file": folder / "models.toml",
        "port": free_port(),
    } | settings
    ended = run(folder, "doctor", "--json", *options, **values)
    assert SECRET not in ended.stdout
    assert ended.stderr == ""
    found: dict[str, list[Any]] = {}
    for line in ended.stdout.splitlines():
        finding = json.loads(line)
        found.setdefault(finding["place"], []).append(finding)
    assert found
    return ended.returncode, found


def test_on_a_good_machine_nothing_fails(tmp_path: Path) -> None:
    status, found = doctor(tmp_path)
    assert status == 0
    assert {"python", "memory", "disk", "port", "model dummy", "sql", "redis", "access"} <= set(
        found
    )
    assert not [f for many in found.values() for f in many if f["level"] == "fail"]


def test_it_reads_well_without_json(tmp_path: Path) -> None:
    given: dict[str, Any] = {"port": free_port(), "model_cache_dir": CONVERTED, **UNMEASURED}
    ended = run(tmp_path, "doctor", **given)
    assert "✓ python: 3." in ended.stdout
    assert "0 failed" in ended.stdout.splitlines()[-1]


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    _, found = doctor(tmp_path)
    assert found["sql"][0]["said"] == "SQLite, whose file is made at the start"
    assert [path.name for path in tmp_path.iterdir()] == ["models.toml"]
    (tmp_path / "data").mkdir()
    doctor(tmp_path)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_database_that_is_there_is_looked_at(tmp_path: Path) -> None:
    assert run(tmp_path, "db", "upgrade").returncode == 0
    _, found = doctor(tmp_path, FAKE, *UNTRIED)
    assert found["sql"][0]["said"] == "SQLite, up to date"


@contextmanager
def listening(answer: bytes) -> Iterator[int]:
    """A server that answers one connection with these bytes; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(60)


def test_a_service_that_runs_is_found_without_the_proxy_of_the_environment(tmp_path: Path) -> None:
    with listening(b"HTTP/1.0 200 OK\r\n\r\n{}") as port:
        status, found = doctor(tmp_path, FAKE, *UNTRIED, port=port, http_proxy="http://127.0.0.1:9")
    assert status == 0
    assert found["port"][0]["said"].endswith("by a service that answers /health")


def test_a_port_where_no_http_is_spoken_fails(tmp_path: Path) -> None:
    with listening(b"SSH-2.0\r\n") as port:
        status, found = doctor(tmp_path, FAKE, *UNTRIED, port=port)
    assert status == 1
    assert found["port"][0]["level"] == "fail"


def test_a_port_in_use_fails(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, found = doctor(tmp_path, FAKE, *UNTRIED, port=taken.getsockname()[1])
    assert status == 1
    assert found["port"][0]["level"] == "fail"


@pytest.mark.parametrize(
    ("models", "place", "message"),
    [
        ("[[models]]\nname = 3", "models", "name"),
        ('[[models]]\nname = "m"\nsource = "package:not_installed/x"', "model m", "not_installed"),
        (
            REMOTE,
            "model m",
            "NO_SUCH_KEY",
        ),
    ],
)
def test_a_model_that_cant_be_had_fails(
    tmp_path: Path, models: str, place: str, message: str
) -> None:
    status, found = doctor(tmp_path, models)
    assert status == 1
    assert found[place][0]["level"] == "fail"
    assert message in found[place][0]["said"]


def test_servers_that_are_away_fail_within_their_time(tmp_path: Path) -> None:
    away = free_port()
    status, found = doctor(
        tmp_path,
        FAKE,
        *UNTRIED,
        database_url=f"postgresql://user:{SECRET.replace(' ', '-')}@127.0.0.1:{away}/name",
        redis_url=f"redis://:{SECRET.replace(' ', '-')}@127.0.0.1:{away}/0",
    )
    assert status == 1
    assert found["sql"][0]["said"] == "PostgreSQL: unreachable"
    assert found["redis"][0]["level"] == "fail"


def test_servers_that_run_are_asked_for_the_time_too(
    tmp_path: Path, postgres: Postgres, valkey: Valkey
) -> None:
    with postgres.database() as url:
        _, behind = doctor(tmp_path, FAKE, *UNTRIED, database_url=url, redis_url=valkey.url)
        assert behind["sql"][0]["advice"].endswith(": run `app db upgrade`.")
        assert run(tmp_path, "db", "upgrade", database_url=url).returncode == 0
        status, found = doctor(tmp_path, FAKE, *UNTRIED, database_url=url, redis_url=valkey.url)
    assert status == 0
    assert [f["level"] for f in found["clock"]] == ["ok", "ok"]


def test_settings_that_do_nothing_or_are_misspelt_are_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DATABASE_POOL_SIZ=3\nOPENAI_API_KEY=x\nLOG_LEVEL=debug\n")
    status, found = doctor(
        tmp_path,
        prediction_log="off",
        prediction_log_bound=5,
        admin_key=SECRET,
        webhook_secret=SECRET,
        log_level="info",
    )
    assert status == 0
    assert found["DATABASE_POOL_SIZ"][0]["advice"] == "Is DATABASE_POOL_SIZE meant?"
    assert "OPENAI_API_KEY" in found
    for idle in ("PREDICTION_LOG_BOUND", "ADMIN_KEY", "WEBHOOK_SECRET"):
        assert "does nothing" in found[idle][-1]["said"], idle
    assert found["ADMIN_KEY"][0]["said"].startswith("(set), from environment")
    assert "the environment wins" in found["LOG_LEVEL"][-1]["said"]


@pytest.mark.parametrize(
    "names",
    [["log_level"], ["trusted_proxies"], ["database_url", "redis_url", "default_limit"]],
    ids=str,
)
def test_a_setting_that_cant_be_used_is_the_only_finding(tmp_path: Path, names: list[str]) -> None:
    status, found = doctor(tmp_path, **dict.fromkeys(names, "loud"))
    assert status == 1
    assert list(found) == ["settings"]
    assert all(f"{name.upper()}: " in found["settings"][0]["said"] for name in names)


def test_a_service_that_is_open_to_others_fails() -> None:
    open_to_all = AllSettings(_env_file=None, host="0.0.0.0", auth="off", auth_off_anywhere=True)
    closed = AllSettings(_env_file=None, host="0.0.0.0")
    levels = [list(findings(s))[-1].level for s in (open_to_all, closed)]
    assert levels == ["fail", "warn"]


def test_little_memory_and_a_clock_that_is_off_are_doubtful() -> None:
    assert machine._memory(2**29).level == "warn"
    assert parts._clock("Redis", 100.0, 110.0, 110.1).level == "warn"
    assert parts._clock("Redis", 110.05, 110.0, 110.1).level == "ok"


def test_a_folder_that_cant_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (finding,) = machine._disk(tmp_path / "file")
    assert finding.level == "fail"
