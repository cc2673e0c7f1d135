"""Commands on the database at hand: keys that are made, listed, revoked; what they say without."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from commands import run
from databases import opened, says
from servers import Postgres

from app.db.schema import upgrade
from app.db.session import Database

CREATE = ("keys", "create", "--name", "web", "--scopes", "predict,chat")
READERS = [("keys", "list"), ("keys", "revoke", "1"), ("db", "vectors"), ("db", "prune", "x@1")]


def failed(ended: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a command printed."""
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    return line.removeprefix("ml-api: error: ")


def test_a_key_is_made_where_no_database_was_and_is_listed_and_revoked(tmp_path: Path) -> None:
    created = run(tmp_path, *CREATE, "--expires", "90d", "--tokens-per-day", "7")
    assert (created.returncode, created.stderr) == (0, "")
    (text,) = created.stdout.splitlines()
    (line,) = run(tmp_path, "keys", "list").stdout.splitlines()
    assert line.split() == ["1", text[:16], "valid", "-", "predict,chat", "web"]
    assert run(tmp_path, "keys", "revoke", "1").stdout == "revoked 1\n"
    assert "revoked or expired" in run(tmp_path, "keys", "list").stdout
    assert failed(run(tmp_path, "keys", "revoke", "2")) == "There is no key with this id."


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--name", "", "--name: from 1 to 100 characters"),
        ("--name", "a\n\x1b[31m", "--name: from 1 to 100 characters, without control"),
        ("--name", os.fsdecode(b"caf\xe9"), "--name: from 1 to 100 characters"),
        ("--limit", "lots", "--limit: not a limit"),
        ("--tokens-per-day", "10000000000000", "--tokens-per-day: from 1 to"),
        ("--tokens-per-day", "99999999999999999999", "--tokens-per-day: from 1 to"),
        ("--scopes", "predict,", "--scopes: ''; known are"),
        ("--scopes", "\x1b[31m", r"--scopes: '\x1b[31m'; known are"),
        ("--expires", "soon", "--expires: write it like"),
    ],
)
def test_a_key_that_cant_be_made_names_its_option(
    tmp_path: Path, option: str, value: str, message: str
) -> None:
    assert failed(run(tmp_path, *CREATE, option, value)).startswith(message)
    assert run(tmp_path, "keys", "list").stdout == ""


def test_an_id_that_no_key_can_have_is_wrong_usage(tmp_path: Path) -> None:
    ended = run(tmp_path, "keys", "revoke", "99999999999999999999")
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


async def test_a_name_that_an_older_version_took_stays_on_its_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    async with opened(url) as database:
        upgrade(database)
        await database.run(
            says(
                "INSERT INTO api_keys (name, prefix, hash, scopes, created_at)"
                " VALUES (:name, 'mlk_1', 'x', '[]', '2026-01-01 00:00:00')",
                name="a\n\x1b[31mb",
            )
        )
    done = await asyncio.to_thread(run, tmp_path, "keys", "list", database_url=url)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.endswith("a [31mb")


@pytest.mark.parametrize("command", [*READERS, ("jobs", "secret")], ids=" ".join)
def test_who_reads_where_no_database_is_hears_so_and_makes_none(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    path = tmp_path / "nope" / "dir" / "x.db"
    done = run(tmp_path, *command, database_url=f"sqlite:///{path}")
    assert failed(done).startswith(f"there is no database at {path}: name it with")
    assert list(tmp_path.iterdir()) == []


def test_an_argument_that_no_database_takes_is_one_line(tmp_path: Path) -> None:
    assert run(tmp_path, "db", "upgrade").returncode == 0
    message = failed(run(tmp_path, "db", "prune", os.fsdecode(b"caf\xe9")))
    assert message == "an argument is not UTF-8, and can't be in the database"


def test_a_database_that_cant_be_used_says_why_in_one_line(
    tmp_path: Path, postgres: Postgres
) -> None:
    with postgres.database() as url:
        behind = failed(run(tmp_path, *CREATE, database_url=url))
        assert behind.startswith("the database: its tables are not up to date: run `app db upgr")
        upgrade(Database(url))
        locked_out = url.replace("//test:", "//test:hunter2")
        refused = failed(run(tmp_path, *CREATE, database_url=locked_out))
        assert "DATABASE_URL has the right host, port, user, password and name" in refused
        assert failed(run(tmp_path, "db", "upgrade", database_url=locked_out)) == refused
        unread = failed(run(tmp_path, "keys", "list", database_url=f"{url}?bogus=hunter2"))
        assert unread == "the database refuses what it is asked: ProgrammingError"
    assert "hunter2" not in refused + unread
