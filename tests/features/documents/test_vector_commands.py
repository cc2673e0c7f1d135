"""`app db vectors` and `app db prune`, on both databases."""

import asyncio
import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from commands import run
from databases import migrated
from passages import SPACE, store
from typer.testing import CliRunner

from app.cli.main import cli
from app.features.documents.vector_commands import DELETED_AT_ONCE

OLD = "minilm@0"


def db(folder: Path, url: str, *arguments: str) -> CompletedProcess[str]:
    return run(folder, "db", *arguments, database_url=url)


async def fill(url: str) -> None:
    async with migrated(url) as database:
        await store(database, {"a": [0, 10], "b": [20]})
        await store(database, {"a": [0], "b": [20] * (DELETED_AT_ONCE + 1)}, space=OLD)


def test_vectors_that_nobody_uses_are_listed_and_deleted(database_url: str, tmp_path: Path) -> None:
    asyncio.run(fill(database_url))
    listed = db(tmp_path, database_url, "vectors", "--json")
    assert [json.loads(line) for line in listed.stdout.splitlines()] == [
        {"space": OLD, "documents": 2, "passages": DELETED_AT_ONCE + 2},
        {"space": SPACE, "documents": 2, "passages": 3},
    ]
    pruned = db(tmp_path, database_url, "prune", OLD)
    assert pruned.stdout == f"deleted {DELETED_AT_ONCE + 2} passages\n"
    (line,) = db(tmp_path, database_url, "vectors").stdout.splitlines()
    assert line.split() == ["2", "documents", "3", "passages", SPACE]


def test_a_name_that_no_vectors_have_is_said_so(database_url: str, tmp_path: Path) -> None:
    asyncio.run(fill(database_url))
    ended = db(tmp_path, database_url, "prune", "minilm")
    assert ended.returncode == 1
    assert "no vectors of 'minilm'" in ended.stderr


def test_a_database_that_is_away_is_one_line(tmp_path: Path) -> None:
    ended = db(tmp_path, "postgresql://127.0.0.1:9/nothing", "vectors")
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["vectors", "prune"])
def test_help_has_an_example(command: str) -> None:
    assert f"app db {command}" in CliRunner().invoke(cli, ["db", command, "--help"]).stdout
