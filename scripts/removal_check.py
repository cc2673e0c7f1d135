"""Take each feature and task out of a copy of the tree, and see that what remains works.

First as after a person deleted the folder and its line in `app/main.py`: mypy passes over `app/`,
and the service answers. Then without the tests of what is gone: lint, types, layers, and the tests
marked `core`. What needs the part that goes, goes with it.
"""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2
from converted import CONVERTED
from process import service

from app.main import FEATURES, TASKS, installed
from app.runtime.plugins import Feature, Plugin
from scripts.ending import clean_up_on_sigterm

ROOT = Path(__file__).parent.parent
# Without classification there is no /predict to ask.
TAKEN_OUT = tuple(name for name in TASKS if name != "classification")
PACKAGED = "chat"  # goes with the models of the package; the others with a fake one
CACHE = ROOT / ".mypy_cache" / "removal"  # of all copies: each differs in a few files
MAY_IMPORT = ("tests", "benchmarks", "scripts")
MODELS = """
[[models]]
name = "dummy"
engine = "fake"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A feature or task that goes, and what goes with it."""

    name: str
    with_it: tuple[Plugin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one step of a removal came to; `failure` is what it printed, None where it is well."""

    part: str
    step: str
    seconds: float
    failure: str | None


def parts() -> Iterator[Part]:
    """Give each part with everything that needs it, and what needs that."""
    plugins = {plugin.name: plugin for plugin in installed().plugins}
    for name in (*FEATURES, *TAKEN_OUT):
        gone = {name: plugins[name]}
        while more := [
            plugin
            for plugin in installed().features
            if plugin.name not in gone and plugin.needs & gone.keys()
        ]:
            gone |= {plugin.name: plugin for plugin in more}
        yield Part(name=name, with_it=tuple(gone.values()))


def room_of(plugin: Plugin) -> str:
    """Return which folder of `app/` and `tests/` has the part's folder."""
    return "features" if isinstance(plugin, Feature) else "tasks"


def copy_tree(target: Path) -> None:
    """Copy what belongs to the project, as it stands."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def remove(copy: Path, part: Part) -> None:
    """Delete the folders and their lines in `app/main.py`."""
    main = copy / "app/main.py"
    source = main.read_text(encoding="utf-8")
    for plugin in part.with_it:
        shutil.rmtree(copy / "app" / room_of(plugin) / plugin.name)
        source, count = re.subn(rf'^    "{plugin.name}",(  #.*)?\n', "", source, flags=re.MULTILINE)
        if count != 1:
            sys.exit(f"app/main.py has {count} lines of {plugin.name}")
    main.write_text(source, encoding="utf-8")


def remove_tests(copy: Path, part: Part) -> list[str]:
    """Delete the tests of what is gone; return which other files went, as they import it."""
    gone = {f"app.{room_of(plugin)}.{plugin.name}" for plugin in part.with_it}
    for plugin in part.with_it:
        folder = copy / "tests" / room_of(plugin) / plugin.name
        gone |= {file.stem for file in folder.rglob("*.py")}
        shutil.rmtree(folder, ignore_errors=True)
    files = [file for folder in MAY_IMPORT for file in (copy / folder).rglob("*.py")]
    removed = []
    while more := [file for file in files if file.exists() and imports(file, gone)]:
        for file in more:
            file.unlink()
            name = file.relative_to(copy).with_suffix("")
            # Tests find each other by their files' names, scripts by their paths.
            gone |= {file.stem} if name.parts[0] == "tests" else {".".join(name.parts)}
            removed.append(str(name.with_suffix(".py")))
    return sorted(removed)


def imports(file: Path, gone: set[str]) -> bool:
    """Say whether a file imports one of these modules, or something within one."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        if any(
            name == module or name.startswith(f"{module}.") for name in names for module in gone
        ):
            return True
    return False


def run(copy: Path, *command: str) -> str | None:
    """Run a tool of this environment in the copy; return what it printed if it failed."""
    environment = {**os.environ, "PYTHONPATH": str(copy)}  # before the tree that is installed
    tool, *arguments = command
    done = subprocess.run(
        [str(Path(sys.executable).parent / tool), *arguments],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr if done.returncode else None


def ask(copy: Path, models: str | None) -> str | None:
    """Start the copy's service, and ask it for a prediction."""
    folder = copy / "data"
    folder.mkdir()
    settings = {"pythonpath": copy, "model_cache_dir": CONVERTED, "jobs": "on"}
    try:
        with service(folder, models, **settings) as started:
            started.wait_ready(timeout_s=120)
            answer = httpx2.post(f"{started.url}/predict", json={"text": "fine"}, timeout=30)
            if answer.status_code != httpx2.codes.OK:
                return f"/predict: {answer.status_code} {answer.text}\n{started.log}"
            if status := started.stop():
                return f"the service ended with {status}\n{started.log}"
    except (AssertionError, TimeoutError, httpx2.HTTPError) as failure:
        return str(failure)
    return None


def try_without(part: Part, workers: int) -> Iterator[Outcome]:
    """Take a part out of a copy, and try each step."""
    mypy = ("mypy", "--cache-dir", str(CACHE))
    core = ("-m", "core and not system", "-p", "no:cacheprovider", "-n", str(workers))
    with tempfile.TemporaryDirectory(prefix="removal-") as name:
        copy = Path(name).resolve()
        copy_tree(copy)
        remove(copy, part)
        models = None if part.name == PACKAGED else MODELS
        yield timed(part, "app has its types", partial(run, copy, *mypy, "app"))
        yield timed(part, "/predict", partial(ask, copy, models))
        for file in remove_tests(copy, part):
            print(f"{part.name}: {file} goes too, as it imports what is gone", flush=True)
        yield timed(part, "ruff", partial(run, copy, "ruff", "check", "--no-cache", "."))
        yield timed(part, "mypy", partial(run, copy, *mypy))
        yield timed(part, "layers", partial(run, copy, "lint-imports", "--no-cache"))
        pytest = ("python", "-m", "pytest", "-q", *core, "--dist", "loadscope")
        yield timed(part, "core tests", partial(run, copy, *pytest))


def timed(part: Part, step: str, attempt: Callable[[], str | None]) -> Outcome:
    """Try one step."""
    began_s = time.monotonic()
    failure = attempt()
    seconds = time.monotonic() - began_s
    if failure is not None:
        print(f"{part.name}: {step} failed\n{failure}", flush=True)
    return Outcome(part=part.name, step=step, seconds=seconds, failure=failure)


def show(outcomes: list[Outcome], gone: dict[str, tuple[Plugin, ...]]) -> None:
    """Print a row for each part, with the seconds of each step or that it failed."""
    steps = list(dict.fromkeys(outcome.step for outcome in outcomes))
    print("| without | " + " | ".join(steps) + " |\n" + "| --- " * (len(steps) + 1) + "|")
    for name, plugins in gone.items():
        of_part = [outcome for outcome in outcomes if outcome.part == name]
        cells = [f"{each.seconds:.0f} s" if each.failure is None else "red" for each in of_part]
        print(f"| {', '.join(plugin.name for plugin in plugins)} | {' | '.join(cells)} |")


def main() -> None:
    """Try each part, or those that are named; anything red ends it with status 1."""
    clean_up_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[*FEATURES, *TAKEN_OUT, []], help="default: all"
    )
    parser.add_argument("--workers", type=int, default=2, help="of pytest")
    given = parser.parse_args()
    wanted = [part for part in parts() if not given.names or part.name in given.names]
    outcomes = [outcome for part in wanted for outcome in try_without(part, given.workers)]
    show(outcomes, {part.name: part.with_it for part in wanted})
    sys.exit(any(outcome.failure is not None for outcome in outcomes))


if __name__ == "__main__":
    main()
