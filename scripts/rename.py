"""Give the project a name of your own: `python scripts/rename.py acme-scores`, once, after cloning.

docs/howto/rename.md says what is renamed and what stays.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

TEMPLATE = "ml-api"
ROOT = Path(__file__).parent.parent
# They tell of the template: its licence, its history, how it is renamed and how it is taken again.
STAYS = frozenset(
    {
        "CHANGELOG.md",
        "LICENSE",
        "docs/howto/rename.md",
        "docs/howto/upgrade.md",
        "scripts/rename.py",
        "tests/test_rename.py",
        "tests/test_upgrade.py",
    }
)
NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
MIN_CHARS, MAX_CHARS = 3, 24  # it begins names of images, metrics and PostgreSQL's user
# Beside packages and Python's own modules: the package, others' metrics, PostgreSQL's own names.
TAKEN = frozenset({"app", "process", "python", "postgres", "admin", "user"})
LINTS = (("check", "--fix"), ("format",), ("check", "--select", "E501", "--add-noqa"))


class RefusedError(Exception):
    """The project can't be renamed; nothing was changed."""


def forms(name: str) -> tuple[str, str, str]:
    """Return a name as packages, as Python and as metrics have it: a-b, a_b, ab."""
    return name, name.replace("-", "_"), name.replace("-", "")


def refuse_name(name: str, root: Path) -> None:
    """See that a name can be used everywhere.

    Raises:
        RefusedError: it can't.

    """
    if not NAME.fullmatch(name) or not MIN_CHARS <= len(name) <= MAX_CHARS:
        raise RefusedError(
            f"{name!r} is no name: {MIN_CHARS} to {MAX_CHARS} small letters, digits and single"
            " hyphens, a letter first"
        )
    pins = "".join(file.read_text(encoding="utf-8") for file in root.glob("requirements*.txt"))
    packages = {pin.lower().replace("_", "-") for pin in re.findall(r"(?m)^[\w-]+", pins)}
    if name in TAKEN | packages or forms(name)[1] in sys.stdlib_module_names:
        raise RefusedError(
            f"{name!r} is taken: by a package, a module of Python or a reserved word"
        )


def read_name(root: Path) -> str:
    """Return what the project is called now."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["name"])


def ask_git(root: Path, *arguments: str) -> str:
    """Return what git says.

    Raises:
        RefusedError: there is no git, or no repository.

    """
    git = shutil.which("git")
    if git is None:
        raise RefusedError("there is no git on the PATH")
    done = subprocess.run([git, *arguments], check=False, capture_output=True, cwd=root, text=True)
    if done.returncode:
        raise RefusedError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def find_ruff(root: Path) -> str:
    """Return the ruff that `make lint` runs, or that of this Python.

    Raises:
        RefusedError: there is none.

    """
    for folder in (root / ".venv" / "bin", Path(sys.executable).parent):
        if found := shutil.which("ruff", path=folder):
            return found
    raise RefusedError("lines get longer or shorter, which needs ruff: run `make lint` once before")


def replace(text: str, name: str) -> tuple[str, int]:
    """Return a text with the template's name replaced in each of its forms, and how often."""
    count = 0
    for old, new in zip(forms(TEMPLATE), forms(name), strict=True):
        count += text.count(old)
        text = text.replace(old, new)
    return text, count


def rename_file(root: Path, path: str, name: str) -> str | None:
    """Rename what is in a file, and the file; return what was done, None for nothing."""
    file = root / path
    if path in STAYS or file.is_symlink() or not file.is_file():
        return None
    try:
        text, count = replace(file.read_text(encoding="utf-8"), name)
    except UnicodeDecodeError:  # a picture, or weights
        return None
    if count:
        file.write_text(text, encoding="utf-8")
    target, is_moved = replace(path, name)
    if is_moved:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        file.rename(root / target)
    if not count and not is_moved:
        return None
    return f"{path}: {count}" + (f", now {target}" if is_moved else "")


def rename(root: Path, name: str) -> list[str]:
    """Rename the project in a folder.

    Args:
        root: of the repository.
        name: the new one.

    Returns:
        A line for each file that was changed; none if the project has the name.

    Raises:
        RefusedError: before anything is changed.

    """
    refuse_name(name, root)
    now = read_name(root)
    if now == name:
        return []
    if now != TEMPLATE:
        raise RefusedError(
            f"the project is called {now!r}, and only {TEMPLATE!r} can be renamed: undo the commit"
            " that renamed it, and rename it anew"
        )
    if ask_git(root, "status", "--porcelain"):
        raise RefusedError("there are changes that aren't committed: commit or stash them first")
    paths = [path for path in ask_git(root, "ls-files", "-z").split("\0") if path]
    ruff = find_ruff(root)
    lines = [line for path in paths if (line := rename_file(root, path, name))]
    for lint in LINTS:
        subprocess.run(
            [ruff, *lint, "--quiet", "."], check=False, cwd=root, stderr=subprocess.DEVNULL
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Rename this project, and say what was changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="as packages are called: acme-scores")
    name = parser.parse_args(arguments).name
    try:
        lines = rename(ROOT, name)
    except RefusedError as refusal:
        sys.exit(f"rename: {refusal}")
    if not lines:
        print(f"rename: the project is called {name} already")
        return
    print("\n".join(lines))
    print(
        f"rename: {len(lines)} files changed. Look at `git diff`, run `make check`, and commit it"
        " alone: docs/howto/upgrade.md needs that commit."
    )


if __name__ == "__main__":
    main()
