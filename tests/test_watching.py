"""What is watched: a database until it can be used, and models while they load."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from serving import make_app, running

from app.errors import (
    DatabaseUnavailableError,
    NotReadyError,
    SchemaError,
    SchemaTooNewError,
    StartupError,
)
from app.runtime.runtime import Runtime
from app.runtime.watching import watch_database, watch_loading

pytestmark = pytest.mark.core


class Failing:
    """A database that can't be used for these reasons, in this order, and then can."""

    dialect = "postgresql"

    def __init__(self, *failures: Exception) -> None:
        self._failures = list(failures)

    async def require_support(self) -> None:
        if self._failures:
            raise self._failures.pop(0)

    async def check(self) -> str | None:
        return "schema" if self._failures else None


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    app = make_app(tmp_path, features="none")
    async with running(app):
        app.state.runtime.stored.clear()
        yield app.state.runtime


async def watch(runtime: Runtime, *failures: Exception) -> list[StartupError]:
    """Watch for some rounds; return what ended the start."""
    fatal: list[StartupError] = []
    database: Any = Failing(*failures)
    with suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await watch_database(runtime, database, fatal.append, every_s=0)
    return fatal


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (DatabaseUnavailableError(), "no connection"),
        (SchemaError("a migration is missing"), "a migration is missing"),
    ],
)
async def test_what_passes_is_logged_once_and_then_the_service_is_ready(
    runtime: Runtime, failure: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(NotReadyError, match=r"^Waiting for the database\.$"):
        runtime.check_ready()
    caplog.set_level(logging.WARNING)
    assert await watch(runtime, failure, failure) == []
    (line,) = [vars(r) for r in caplog.records if r.getMessage() == "database_not_ready"]
    assert reason in line["reason"]
    assert runtime.database_problem is None
    runtime.check_ready()


async def test_tables_of_a_newer_program_end_the_start_and_ready_says_why(
    runtime: Runtime,
) -> None:
    failure = SchemaTooNewError("it is of a newer program")
    assert await watch(runtime, failure) == [failure]
    with pytest.raises(NotReadyError, match=r"^The database can't be used: "):
        runtime.check_ready()


async def test_what_a_feature_refuses_ends_the_start(runtime: Runtime) -> None:
    failure = StartupError("what is stored can't be used")

    async def check() -> None:
        raise failure

    runtime.database_checks.append(check)
    assert await watch(runtime) == [failure]
    assert not runtime.stored.is_set()


async def test_once_every_model_is_there_none_is_said_to_load(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    runtime.loaded.clear()  # as between the last model and the end of loading
    with suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await watch_loading(runtime, every_s=0.01)
    assert "models_loading" not in caplog.messages
