"""Run the blocks of docs/clients.md, as they stand there, against the real service.

Each client is ok, has failed, or isn't to be had where the registry has no versions that fit. What
they need is in environments of its own: `make clients-check`.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converted import CONVERTED
from process import service

from scripts.clients_environments import (
    Environment,
    NotToBeHadError,
    environments,
    missing,
    name_of,
    versions_of,
)
from scripts.clients_page import PAGE, Block, Client, clients
from scripts.ending import clean_up_on_sigterm
from scripts.install import torch_pin

ROOT = Path(__file__).parent.parent
CATALOG = ROOT / "app" / "models" / "models.toml"
# `make serve` has no reranker: this one compares words.
RERANKER = """
[[models]]
name = "reranker"
task = "text-ranking"
engine = "fake"
default = true
"""
LEAST = 25  # of a whole run: a registry that gives nothing is no success
LIMIT_S = 300  # of all blocks of a client: one that hangs holds the others up no longer
START_S = 900  # models may have to be converted, beside other work
SHOWN = 2_000  # characters of a failure
BEGIN = "<!-- made by `make clients-check` -->"
END = "<!-- end -->"
# Nobody but the service is asked: what clients report to their makers is switched off, and
# addresses of the internet lead to a port where nothing listens.
QUIET = {
    "AGNO_TELEMETRY": "false",
    "ANONYMIZED_TELEMETRY": "false",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "MEM0_TELEMETRY": "False",
    "OTEL_SDK_DISABLED": "true",
}
SUFFIXES = {"python": "py", "js": "mjs", "sh": "sh"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a client.

    Args:
        state: `ok`, `failed` or `not to be had`.
        versions: of its packages.
        reason: why it isn't ok.
        seconds: that its blocks took.

    """

    state: str
    versions: Sequence[str] = ()
    reason: str = ""
    seconds: float = 0


def command(block: Block, file: Path, environment: Environment) -> list[str | Path]:
    """Return what runs a block."""
    if block.language == "sh":
        return ["bash", "-euo", "pipefail", file]
    return [environment.programs / ("node" if block.language == "js" else "python"), file]


def run(
    block: Block, folder: Path, environment: Environment, address: str, *, until_s: float
) -> str:
    """Run a block in a folder; return why it failed, or an empty text.

    Args:
        block: to be run.
        folder: in which it is alone.
        environment: has its packages.
        address: of the service.
        until_s: when it is killed, as `time.monotonic` counts.

    """
    file = folder / f"block.{SUFFIXES[block.language]}"
    file.write_text(block.at(address), encoding="utf-8")
    packages = folder / "node_modules"
    if block.language == "js" and not packages.exists():
        packages.symlink_to(environment.folder / "node_modules")
    path = f"{environment.programs}{os.pathsep}{os.environ['PATH']}"
    # Not a pipe: a process that it leaves behind would hold that open.
    with (folder / "output").open("wb") as written:
        process = subprocess.Popen(
            command(block, file, environment),
            cwd=folder,
            env={"HOME": str(folder), "LANG": "C.UTF-8", "PATH": path} | QUIET,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(max(0.0, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with suppress(ProcessLookupError):  # none is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    output = (folder / "output").read_text("utf-8", errors="replace")
    if status is None:
        return f"it didn't end in time\n{output[-SHOWN:]}"
    if status:
        return f"status {status}\n{output[-SHOWN:]}"
    missing = [text for text in block.prints if text not in output]
    return f"it doesn't print {missing}\n{output[-SHOWN:]}" if missing else ""


def check(client: Client, environment: Environment, address: str, limit_s: float) -> Outcome:
    """Run the blocks of a client, in a folder of their own."""
    started = time.monotonic()
    until_s = started + limit_s
    with tempfile.TemporaryDirectory(prefix="client-", ignore_cleanup_errors=True) as folder:
        reasons = (
            run(block, Path(folder), environment, address, until_s=until_s)
            for block in client.blocks
        )
        reason = next(filter(None, reasons), "")
    return Outcome(
        state="failed" if reason else "ok",
        versions=versions_of(client, environment.versions()),
        reason=reason,
        seconds=time.monotonic() - started,
    )


def install(places: Iterable[Environment], python: str) -> Mapping[Environment, str]:
    """Install environments; return why some can't be had."""
    refusals = {}
    for place in places:
        try:
            place.install(python, torch_pin())
        except NotToBeHadError as refusal:
            refusals[place] = str(refusal)
    return refusals


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the models of `make serve` and a reranker; give the address."""
    adapters = f'adapter = "{CATALOG.parent}/'
    models = CATALOG.read_text("utf-8").replace('adapter = "', adapters) + RERANKER
    # Threads of llama.cpp that wait for each other spin on the cores that clients need.
    given: dict[str, Any] = {"model_cache_dir": CONVERTED, "engine_threads": 1}
    with service(folder, models, auth="off", **given) as running:
        running.wait_ready(START_S)
        running.wait_loaded(START_S)
        try:
            yield f"127.0.0.1:{running.port}"
        finally:
            running.stop()


def table(outcomes: Mapping[str, Outcome]) -> str:
    """Return the table of a page."""
    rows = [
        f"| {name} | {', '.join(outcome.versions)} | {outcome.state} |"
        for name, outcome in outcomes.items()
    ]
    return "\n".join(["| client | versions tried | |", "| --- | --- | --- |", *rows])


def write(outcomes: Mapping[str, Outcome]) -> None:
    """Put the table into the page."""
    text = PAGE.read_text("utf-8")
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    PAGE.write_text(f"{head}{BEGIN}\n\n{table(outcomes)}\n\n{END}{tail}", encoding="utf-8")


def show(name: str, outcome: Outcome) -> None:
    """Print the line of a client."""
    first = outcome.reason.splitlines()[0] if outcome.reason else ""
    versions = ", ".join(outcome.versions)
    print(f"{outcome.state:14} {name:28} {outcome.seconds:5.1f} s  {versions}  {first}", flush=True)
    if outcome.state == "failed":
        print(outcome.reason, flush=True)


def main() -> None:
    """Run all clients of the page, or those named; a whole run writes the page's versions."""
    clean_up_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--python", default=sys.executable, help="makes virtual environments")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="that a client may take")
    parser.add_argument("names", nargs="*", help="of clients; default: all")
    arguments = parser.parse_args()
    known = clients()
    wanted = [client for client in known if client.name in arguments.names or not arguments.names]
    if unknown := set(arguments.names) - {client.name for client in known}:
        sys.exit(f"the page has no {', '.join(sorted(unknown))}")
    places = environments(known, arguments.environments.absolute())
    place_of = {client.name: places[name_of(client)] for client in wanted}
    refusals = install(dict.fromkeys(place_of.values()), arguments.python)
    outcomes = {}
    with tempfile.TemporaryDirectory(prefix="clients-") as folder, served(Path(folder)) as address:
        for client in wanted:
            place = place_of[client.name]
            refusal = refusals.get(place) or missing(client)
            outcomes[client.name] = (
                Outcome(state="not to be had", reason=refusal)
                if refusal
                else check(client, place, address, arguments.limit_s)
            )
            show(client.name, outcomes[client.name])
    states = [outcome.state for outcome in outcomes.values()]
    counts = {state: states.count(state) for state in ("ok", "failed", "not to be had")}
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    is_good = not counts["failed"]
    if not arguments.names:
        is_good = is_good and counts["ok"] >= LEAST
        if is_good:
            write(outcomes)
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
