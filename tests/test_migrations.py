"""Migrations: up, down, at once from several processes, and in step with the tables."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from databases import opened
from servers import free_port
from sqlalchemy import inspect, text
from sqlalchemy.orm import Session

import app.features.access.tables
import app.features.documents.tables
import app.features.drift.tables
import app.features.jobs.tables
import app.features.openai_batches.tables
import app.features.prediction_log.tables
import app.features.versions.tables  # noqa: F401  # declared by being imported
from app.db.schema import config, downgrade, upgrade
from app.db.session import Database
from app.db.tables import SCHEMA_REVISION, Base
from app.errors import DatabaseUnavailableError, SchemaError

ROOT = Path(__file__).parent.parent
UPGRADE = """
import sys
from app.db.schema import upgrade
from app.db.session import Database
database = Database(sys.argv[1], timeout_s=0.2)
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
upgrade(database)
"""


def tables(session: Session) -> set[str]:
    return set(inspect(session.connection()).get_table_names())


async def test_migrations_go_up_and_down_and_up_again(empty_database_url: str) -> None:
    async with opened(empty_database_url) as database:
        for _ in range(2):
            await asyncio.to_thread(upgrade, database)
            assert await database.read(tables) >= {"alembic_version", *Base.metadata.tables}
            assert await database.check() is None
            await asyncio.to_thread(upgrade, database)  # nothing is left to do
            await asyncio.to_thread(downgrade, database, "base")
            assert await database.read(tables) == {"alembic_version"}
            assert await database.check() == "schema"


def is_portable(name: str | None, kind: str, _parents: Any) -> bool:
    """Tell what every database has; the rest is said in PassageRow's docstring."""
    return (kind, name) not in {("table", "deleted_passages"), ("index", "ix_passages_hnsw_384")}


async def test_tables_and_migrations_agree(empty_database_url: str) -> None:
    async with opened(empty_database_url) as database:
        upgrade(database)
        with database.alone() as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "include_name": is_portable}
            )
            assert compare_metadata(context, Base.metadata) == []


def test_the_newest_migration_is_the_one_that_is_asked_for() -> None:
    scripts = ScriptDirectory.from_config(config())
    assert scripts.get_heads() == [SCHEMA_REVISION]
    for script in scripts.walk_revisions():
        assert len(script.revision) == 4, "revisions are compared as text"
        assert script.revision.isdecimal()
        assert Path(script.path).name.startswith(script.revision)


def test_processes_that_migrate_at_once_take_turns(empty_database_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", UPGRADE, empty_database_url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said


async def test_a_migration_that_fails_leaves_nothing_half_done(empty_database_url: str) -> None:
    async with opened(empty_database_url) as database:
        make = text("CREATE TABLE predictions (n INTEGER)")
        await database.run(lambda session: session.execute(make) and None)
        with pytest.raises(SchemaError, match="failed"):
            upgrade(database)
        assert "api_keys" not in await database.read(tables)
        drop = text("DROP TABLE predictions")
        await database.run(lambda session: session.execute(drop) and None)
        upgrade(database)
        assert await database.check() is None


async def test_a_database_of_a_newer_program_is_left_alone(empty_database_url: str) -> None:
    async with opened(empty_database_url) as database:
        upgrade(database)
        newer = text("UPDATE alembic_version SET version_num = '9999'")
        await database.run(lambda session: session.execute(newer) and None)
        with pytest.raises(SchemaError, match="9999"):
            upgrade(database)


def test_a_database_that_is_down_cannot_be_migrated() -> None:
    database = Database(f"postgresql://me:secret@127.0.0.1:{free_port()}/x")
    with pytest.raises(DatabaseUnavailableError) as caught:
        upgrade(database)
    assert "secret" not in str(caught.value)


def test_a_file_that_cannot_be_made_cannot_be_migrated(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseUnavailableError):
        upgrade(Database(f"sqlite:///{tmp_path}/file/x.db"))
