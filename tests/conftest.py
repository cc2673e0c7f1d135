"""What every test shares: the event loop's kind, and no network beyond this machine."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Postgres, Valkey, some_postgres, some_valkey

LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that tries to leave the machine, whatever it does with the refusal."""
    tried: list[Any] = []
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
            tried.append(address)
            raise ConnectionRefusedError(f"tests stay on this machine: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    yield
    assert tried == []


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The PostgreSQL of this run; a test that freezes or kills one starts its own."""
    with some_postgres() as found:
        yield found


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """The Valkey of this run; a test that freezes or kills one starts its own."""
    with some_valkey() as found:
        yield found


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """An empty database of this test's own."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """A Redis or Valkey that other tests, and maybe others, use too: take keys of your own."""
    return valkey.url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'sql' / 'test.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url
