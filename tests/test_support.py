"""Programs and tables of different versions: what goes on working, and what is refused."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from databases import ONE, migrated, opened, says, unavailable
from serving import FatalError, make_app, make_settings, running

from app.db.schema import MIGRATIONS, config, downgrade, upgrade
from app.db.session import Database
from app.db.support import Support
from app.db.tables import SCHEMA_REVISION
from app.errors import SchemaTooNewError
from app.features.jobs.worker import require_support
from app.runtime import watching
from app.runtime.runtime import Runtime

NEXT, AFTER = "9001", "9002"
MIGRATION = '''
"""Of a newer program."""
import sqlalchemy as sa
from alembic import op
revision, down_revision, oldest_program = "{revision}", "{before}", "{oldest}"
def upgrade() -> None:
    op.create_table("t{revision}", sa.Column("n", sa.Integer(), primary_key=True))
def downgrade() -> None:
    op.drop_table("t{revision}")
'''
KEEPS = SCHEMA_REVISION  # works with the program that runs these tests
BREAKS = NEXT


def newer_program(folder: Path, *oldest: str) -> Path:
    """Make the migrations of a newer program: one for each, with what it says of older ones."""
    target = Path(shutil.copytree(MIGRATIONS, folder / "-".join(oldest)))
    before = SCHEMA_REVISION
    for revision, program in zip((NEXT, AFTER), oldest, strict=False):
        source = MIGRATION.format(revision=revision, before=before, oldest=program)
        (target / "versions" / f"{revision}_new.py").write_text(source, encoding="utf-8")
        before = revision
    return target


@asynccontextmanager
async def newer(url: str, folder: Path, *oldest: str) -> AsyncIterator[Database]:
    """Give a database that a newer program has migrated, open for the program of these tests."""
    async with opened(url) as theirs:
        program = newer_program(folder, *oldest)
        await asyncio.to_thread(upgrade, theirs, migrations=program)
    async with opened(url) as database:
        yield database


@pytest.mark.parametrize(
    ("support", "expected"),
    [
        (Support(revision=None, is_shared=True), None),
        (Support(revision="0004", is_shared=True), None),
        (Support(revision="0005", is_shared=False), None),
        (Support(revision="0006", oldest="0005", is_shared=True), None),
        (Support(revision="0006", oldest="0001", is_shared=True), None),
        (Support(revision="0006", oldest="0006", is_shared=True), "programs from 0006 on"),
        (Support(revision="0006", is_shared=True), "doesn't say"),
        (Support(revision="0006", oldest="0001", is_shared=False), "put back the file"),
    ],
)
def test_a_program_uses_what_it_knows_and_what_says_that_it_serves(
    support: Support, expected: str | None
) -> None:
    refusal = support.refusal("0005")
    assert (refusal is None) == (expected is None)
    assert expected is None or expected in (refusal or "")


def test_every_migration_says_which_programs_it_serves() -> None:
    for script in ScriptDirectory.from_config(config()).walk_revisions():
        assert "0001" <= script.module.oldest_program <= script.revision


async def test_postgresql_serves_an_older_program_whose_tables_still_fit(
    postgres_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with newer(postgres_url, tmp_path, KEEPS, KEEPS) as database:
        assert await database.check() is None
        assert await database.run(ONE) == 1
        # A pipeline that rolls back runs the old program's `app db upgrade` first.
        await asyncio.to_thread(upgrade, database)
        assert await database.run(says("SELECT max(version_num) FROM alembic_version")) == AFTER
    assert "database_newer" in [record.message for record in caplog.records]


async def test_one_incompatible_migration_refuses_older_programs_for_good(
    postgres_url: str, tmp_path: Path
) -> None:
    async with newer(postgres_url, tmp_path, BREAKS, KEEPS) as database:
        with unavailable("newer"):
            await database.run(ONE)
        with pytest.raises(SchemaTooNewError, match=f"{AFTER}.*programs from {NEXT} on"):
            await asyncio.to_thread(upgrade, database)


async def test_sqlite_is_refused_whatever_the_migration_says(tmp_path: Path) -> None:
    async with newer(f"sqlite:///{tmp_path}/x.db", tmp_path, KEEPS) as database:
        assert await database.check() == "newer"
        with unavailable("newer"):
            await database.read(ONE)
        with pytest.raises(SchemaTooNewError, match=NEXT):
            await asyncio.to_thread(upgrade, database)


async def test_a_program_that_runs_stops_using_tables_that_a_newer_one_takes_over(
    database_url: str, tmp_path: Path
) -> None:
    program = newer_program(tmp_path, BREAKS)
    async with migrated(database_url) as database, opened(database_url) as theirs:
        assert await database.check() is None
        await asyncio.to_thread(upgrade, theirs, migrations=program)
        assert await database.check() == "newer"
        with unavailable("newer"):
            await database.run(ONE)
        await asyncio.to_thread(downgrade, theirs, SCHEMA_REVISION, migrations=program)
        assert await database.check() is None, "a rollback of the tables is seen too"
        assert await database.run(ONE) == 1


async def test_a_service_is_not_started_on_tables_that_do_not_serve_it(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with newer(database_url, tmp_path, BREAKS):
        pass
    app = make_app(tmp_path, database_url=database_url)
    with pytest.raises(FatalError, match=f"revision {NEXT}, newer than this program's"):
        async with running(app):
            raise AssertionError
    assert [r.message for r in caplog.records if r.name.startswith("app.runtime")] == [
        "startup_failed"
    ]


async def test_ready_says_why_until_the_process_has_ended(
    database_url: str, tmp_path: Path
) -> None:
    async with newer(database_url, tmp_path, BREAKS):
        pass
    app = make_app(tmp_path, database_url=database_url)
    async with running(app, wait=False) as client:
        runtime: Runtime = app.state.runtime
        await runtime.stored.wait()  # the test's on_fatal sets it
        runtime.stored.clear()
        await runtime.loaded.wait()
        while "newer" not in (answer := await client.get("/ready")).text:
            await asyncio.sleep(0)  # models load
    assert answer.status_code == 503
    assert "start the newer one" in answer.json()["detail"]


async def test_a_service_on_newer_tables_that_serve_it_is_ready(
    postgres_url: str, tmp_path: Path
) -> None:
    async with newer(postgres_url, tmp_path, KEEPS):
        pass
    async with running(make_app(tmp_path, database_url=postgres_url)) as client:
        assert (await client.get("/ready")).json()["degraded"] == []
        answer = await client.post("/documents", json={"documents": [{"id": "a", "text": "x"}]})
    assert answer.status_code == 201


async def test_a_service_whose_tables_are_taken_over_says_so_and_goes_on_without(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "DATABASE_CHECK_S", 0.02)
    async with migrated(postgres_url) as theirs:
        app = make_app(tmp_path, database_url=postgres_url)
        async with running(app) as client, asyncio.timeout(30):
            program = newer_program(tmp_path, BREAKS)
            await asyncio.to_thread(upgrade, theirs, migrations=program)
            while not (degraded := (await client.get("/ready")).json()["degraded"]):
                await asyncio.sleep(0.01)
            refused = await client.get("/documents")
            predicted = await client.post("/predict", json={"text": "x"})
    assert degraded == ["database:newer"]
    assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
    assert predicted.status_code == 200


async def test_a_worker_is_not_started_on_tables_that_do_not_serve_it(
    database_url: str, tmp_path: Path
) -> None:
    async with newer(database_url, tmp_path, BREAKS):
        pass
    settings = make_settings(tmp_path, database_url=database_url)
    with pytest.raises(SchemaTooNewError, match=NEXT):
        await asyncio.to_thread(require_support, settings)
