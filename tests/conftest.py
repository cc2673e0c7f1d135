"""What every test shares: the event loop's kind, and no network beyond this machine."""

import gc
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from databases import migrate, place_tables
from groups import ByModule
from httpx2 import AsyncClient
from hypothesis import settings
from servers import Postgres, Valkey, some_postgres, some_valkey
from serving import serving
from tiers import is_left_out
from tracing import leave_libraries_out

# The same examples in each run, so that a run's colour hangs on the code and not on a seed;
# `make fuzz` takes fresh ones, and pinned examples (`@example`) are in both.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("fresh", max_examples=500, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Workers share the cores: a thread of torch's that spins while it waits takes one from another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if sys.gettrace() is not None:  # coverage's
    leave_libraries_out()

# Until the tests begin: what is imported stays, and looking through it took a fourth of collecting.
gc.disable()

LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByModule:
    """Let workers take whole modules; the group of each is in `groups.py`."""
    return ByModule(config, log)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file of tests that `-m` leaves out: each worker would."""
    return True if is_left_out(collection_path, config.option.markexpr) else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Leave what was imported out of every later collection of garbage: a million objects."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    """Give a client of one app a module, on a fake classifier, for tests that change nothing there.

    A module with other models has a fixture of this name of its own.
    """
    async with serving(tmp_path_factory.mktemp("app")) as client:
        yield client


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


@pytest.fixture(scope="session")
def tables(postgres: Postgres) -> Iterator[str]:
    """The name of a database with all tables, to be copied."""
    with postgres.database() as url:
        migrate(url)
        yield url.rpartition("/")[2]


@pytest.fixture
def postgres_url(postgres: Postgres, tables: str) -> Iterator[str]:
    """A database of this test's own, with all tables."""
    with postgres.database(template=tables) as url:
        yield url


@pytest.fixture
def empty_postgres_url(postgres: Postgres) -> Iterator[str]:
    """A database of this test's own, without tables."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """A Redis or Valkey that other tests, and maybe others, use too: take keys of your own."""
    return valkey.url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind, with all tables."""
    if request.param == "sqlite":
        file = tmp_path / "sql" / "test.db"
        place_tables(file)
        return f"sqlite:///{file}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind, without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'sql' / 'test.db'}"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an embedder's encoder as transformers saves it; copy before a change."""
    from tiny_embedders import save_encoder

    return save_encoder(tmp_path_factory.mktemp("encoder") / "model")
