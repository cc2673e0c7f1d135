"""`scripts/rename.py`, in a small project of the test's own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.rename import MAX_CHARS, STAYS, RefusedError, forms, rename

ROOT = Path(__file__).parent.parent
FILES = {
    "pyproject.toml": '[project]\nname = "ml-api"\n\n[tool.ruff]\nline-length = 40\n'
    'lint.select = ["E501"]\n',
    "requirements.txt": "celery==5.7.0\nFastAPI_offline==1.7.7 ; python_version > '3'\n",
    "app/main.py": 'GROUP = "ml_api.tasks"\nPREFIX = "mlapi_"\nTITLE = "ml-api"\n'
    'LINE = "ml-api: a line of 39 characters"\n',
    "deploy/grafana/ml-api.json": '{"expr": "rate(mlapi_refused_total[5m])"}\n',
    "docker-compose.yml": "image: ml-api:${TAG:-latest}\n",
    "LICENSE": "Copyright (c) 2026 The ml-api authors\n",
    "README.md": "# ml-api\n\nKeys begin with mlk_, the command is `app`.\n",
}
PICTURE = b"\x89PNG ml-api"


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", *identity, *arguments], check=True, capture_output=True, cwd=root, text=True
    )
    return done.stdout


def texts(root: Path) -> dict[str, str]:
    paths = git(root, "ls-files", "--cached", "--others").split()
    files = {path: root / path for path in paths if path in FILES or path.endswith("scores.json")}
    return {path: file.read_text("utf-8") for path, file in files.items() if file.exists()}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(PICTURE)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "Begin")
    return tmp_path


def test_each_form_of_the_name_is_replaced_in_files_and_their_names(project: Path) -> None:
    lines = rename(project, "acme-scores")
    assert lines == [
        "README.md: 1",
        "app/main.py: 4",
        "deploy/grafana/ml-api.json: 1, now deploy/grafana/acme-scores.json",
        "docker-compose.yml: 1",
        "pyproject.toml: 1",
    ]
    assert (project / "picture.png").read_bytes() == PICTURE
    found = texts(project)
    assert found["app/main.py"].startswith(
        'GROUP = "acme_scores.tasks"\nPREFIX = "acmescores_"\nTITLE = "acme-scores"\n'
    )
    assert found["deploy/grafana/acme-scores.json"] == (
        '{"expr": "rate(acmescores_refused_total[5m])"}\n'
    )
    assert found["README.md"] == FILES["README.md"].replace("ml-api", "acme-scores")
    assert found["LICENSE"] == FILES["LICENSE"]


def test_a_line_that_gets_too_long_passes_lint(project: Path) -> None:
    rename(project, "a-name-of-24-characters1")
    assert texts(project)["app/main.py"].endswith('39 characters"  # noqa: E501\n')
    ruff = [sys.executable, "-m", "ruff", "check", "--quiet", "."]
    assert subprocess.run(ruff, check=False, cwd=project).returncode == 0


def test_a_second_time_there_is_nothing_to_do(project: Path) -> None:
    rename(project, "acme-scores")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "Rename")
    assert rename(project, "acme-scores") == []
    with pytest.raises(RefusedError, match="only 'ml-api' can be renamed"):
        rename(project, "another-name")
    assert git(project, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    "name",
    [
        *("", "ab", "Acme", "acme_scores", "acme--scores", "-acme", "acme-", "1acme", "ac me"),
        *(
            "../acme",
            "a" * (MAX_CHARS + 1),
            "app",
            "celery",
            "fastapi-offline",
            "python",
            "logging",
        ),
    ],
)
def test_a_name_that_cant_be_used_is_refused(project: Path, name: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(repr(name))):
        rename(project, name)
    assert git(project, "status", "--porcelain") == ""


def test_changes_that_are_not_committed_are_not_mixed_in(project: Path) -> None:
    (project / "README.md").write_text("# ml-api, and mine\n", encoding="utf-8")
    with pytest.raises(RefusedError, match="commit or stash them first"):
        rename(project, "acme-scores")
    assert texts(project)["README.md"] == "# ml-api, and mine\n"


def test_without_a_repository_nothing_is_done(project: Path) -> None:
    (project / ".git").rename(project / "was-git")
    with pytest.raises(RefusedError, match="git status: fatal: not a git repository"):
        rename(project, "acme-scores")


def test_the_command_says_what_it_refuses() -> None:
    script = [sys.executable, "scripts/rename.py", "No Name"]
    done = subprocess.run(script, check=False, capture_output=True, cwd=ROOT, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("rename: 'No Name' is no name: 3 to 24 small letters")


def test_what_stays_is_there_and_the_name_has_its_three_forms() -> None:
    assert [path for path in STAYS if not (ROOT / path).exists()] == []
    assert forms("ml-api") == ("ml-api", "ml_api", "mlapi")
