"""docs/howto/upgrade.md: its commands in repositories of the test's own, its tables, its rule."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from databases import opened
from sqlalchemy import inspect

from app.db.schema import MIGRATIONS, upgrade

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "howto" / "upgrade.md").read_text("utf-8")
COMMANDS = re.compile(r"^ *```sh\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
MOVED = re.compile(r"^\| `(app[\w.]+)` \| (.+) \|$", re.MULTILINE)
MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
oldest_program = "0001"


def upgrade() -> None:
    op.create_table("t{revision}", sa.Column("id", sa.Integer(), primary_key=True))
"""


def run(folder: Path, *commands: str) -> str:
    """Run commands in a shell, as somebody who has a name and an address."""
    who = {"NAME": "a", "EMAIL": "a@example.org"}
    env = os.environ | {f"GIT_{r}_{k}": v for r in ("AUTHOR", "COMMITTER") for k, v in who.items()}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    script = "\n".join(("set -e", *commands))
    done = subprocess.run(
        ["bash", "-c", script], check=False, capture_output=True, cwd=folder, env=env, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def test_a_later_version_comes_in_under_the_project_s_own_name(tmp_path: Path) -> None:
    template, project = tmp_path / "template", tmp_path / "project"
    (template / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "rename.py", template / "scripts")
    lines = ["# ml-api", "", "mlapi_queue_depth", "", "The end of ml-api."]
    write(template, **{"pyproject.toml": '[project]\nname = "ml-api"\n'}, README="\n".join(lines))
    run(template, "git init -q -b main", "git add --all", "git commit -qm 1", "git tag v0.1.0")
    run(
        tmp_path,
        "git clone -q template project && cd project",
        "python3 scripts/rename.py acme-scores",
        "git add --all && git commit -qm Rename",
        "git branch template HEAD",
        f"git remote add upstream {template}",
        "echo Mine. >> README && echo mine > mine && git add --all && git commit -qm Mine",
    )
    lines[2:3] = ["mlapi_queue_depth and mlapi_wait_seconds"]
    write(template, README="\n".join(lines), NEW="new in ml-api\n")
    run(template, "git add --all", "git commit -qm 2", "git tag v0.2.0")
    found = COMMANDS.search(GUIDE)
    assert found
    run(project, textwrap.dedent(found[1]))
    assert (project / "README").read_text("utf-8") == (
        "# acme-scores\n\nacmescores_queue_depth and acmescores_wait_seconds\n\n"
        "The end of acme-scores.Mine.\n"
    )
    assert (project / "NEW").read_text("utf-8") == "new in acme-scores\n"
    assert (project / "mine").exists()
    assert run(project, "git status --porcelain", "git branch --show-current") == "main\n"


def test_modules_went_where_the_table_says() -> None:
    rows = MOVED.findall(GUIDE)
    assert len(rows) > 100
    for old, new in rows:
        assert not (ROOT / f"{old.replace('.', '/')}.py").exists(), old
        for module in re.findall(r"`([\w.]+)`", new):
            assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module


async def test_the_template_s_migrations_follow_those_of_the_project(tmp_path: Path) -> None:
    mine = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, mine, ignore=shutil.ignore_patterns("__pycache__"))
    newest = max(file.name[:4] for file in (mine / "versions").glob("[0-9]*.py"))
    own, later = f"{newest}a", f"{int(newest) + 1:04}"
    async with opened(f"sqlite:///{tmp_path / 'tables.db'}") as database:
        for revision, before in ((own, newest), (later, own)):
            text = MIGRATION.format(revision=revision, before=before)
            write(mine / "versions", **{f"{revision}_new.py": text})
            await asyncio.to_thread(upgrade, database, migrations=mine)
        with database.alone() as connection:
            assert {f"t{own}", f"t{later}"} <= set(inspect(connection).get_table_names())
