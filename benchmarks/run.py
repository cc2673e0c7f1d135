"""Measures this service and its peers on the same weights and texts; writes RESULTS.md.

Everything runs on this machine and talks over loopback. See benchmarks/README.md.
"""

import argparse
import datetime as dt
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import process, table, venvs
from benchmarks.contest import CHECKED_TEXTS, Job, find_ir, running, take_turn, wait_ready
from benchmarks.limit import EngineAlone, engine_alone
from benchmarks.lineup import FLOAT32, LINEUP, OPENVINO, PADDED_SERVICE, Contestant
from benchmarks.table import LimitRow, Row
from benchmarks.texts import load_texts
from benchmarks.venvs import PeerError

HERE = Path(__file__).resolve().parent
WORK = HERE / ".work"
RESULTS = HERE / "RESULTS.md"
ENGINES = {FLOAT32: "torch", OPENVINO: "auto"}
# For peers, which pad: this service's own graph runs texts in rows.
PADDED = "packed = false\n"
SHOWN_PACKAGES = ("fastapi", "uvicorn", "torch", "transformers", "openvino")
MODEL_ENTRY = """[[models]]
name = "sentiment"
source = "file:{model}"
engine = "{engine}"
default = true
required = true
"""


def say(line: str) -> None:
    """Show progress."""
    print(f"bench: {line}", flush=True)


def prepare_model(work: Path) -> None:
    """Export the classifier once, and write the catalogues that serve the export."""
    work.mkdir(exist_ok=True)
    model = work / "model"
    if not model.exists():
        say("exporting the classifier with its adapter merged")
        app = venvs.bin_folder(None) / "app"
        subprocess.run([app, "models", "export", "sentiment", model], check=True)
    entries = {
        engine: MODEL_ENTRY.format(model=model, engine=engine) for engine in ENGINES.values()
    }
    entries["padded"] = entries["auto"] + PADDED
    for name, entry in entries.items():
        (work / f"{name}.toml").write_text(entry, encoding="utf-8")


def prepare_ir(job: Job) -> None:
    """Let this service convert the model once, outside of any measured start."""
    (auto,) = (contestant for contestant in LINEUP if contestant.name == "auto")
    for contestant in (auto, PADDED_SERVICE):
        if find_ir(job.work, contestant.name) is None:
            with running(contestant, contestant.sizes, job.work) as made:
                wait_ready(contestant, made, job.texts[0])


def enter(contestant: Contestant) -> Row:
    """Make a contestant's row; one that can't be installed says why."""
    row = Row(contestant=contestant)
    try:
        if contestant.venv is not None:
            venvs.prepare(contestant.venv)
        row.version = venvs.version(contestant.venv, contestant.package)
    except PeerError as failure:
        row.reason = str(failure)
    return row


@contextmanager
def open_limits(work: Path) -> Iterator[dict[str, EngineAlone]]:
    """Start an engine alone for each kind; idle, it takes memory but no processor time."""
    with ExitStack() as stack:
        yield {
            kind: stack.enter_context(engine_alone(name, work)) for kind, name in ENGINES.items()
        }


def measure_limits(
    engines: dict[str, EngineAlone], rows: dict[str, LimitRow], texts: Sequence[str]
) -> None:
    """Measure each engine alone once."""
    for kind, engine in engines.items():
        row = rows[kind]
        try:
            found, row.chosen = engine.measure(texts)
        except PeerError as failure:
            row.reason = str(failure)
            continue
        row.per_second.append(found)
        row.memory_mb = engine.memory_mb()
        say(f"{kind:14} alone: {found:.0f} texts/s ({row.chosen})")


def one_round(rows: Sequence[Row], job: Job) -> None:
    """Give each contestant a turn; one that fails once is out."""
    for row in rows:
        if row.reason:
            continue
        try:
            turn = take_turn(row.contestant, job)
        except PeerError as failure:
            row.reason = str(failure)
            row.turns.clear()
            say(f"{row.contestant.name}: {failure}")
            continue
        row.turns.append(turn)
        found = ", ".join(f"{r.per_second:.0f} at {n}" for n, r in turn.closed.items())
        late = turn.overload.per_second if turn.overload else 0
        say(f"{row.contestant.name:18} req/s {found}; goodput at 2x {late:.0f}")


def tune(rows: Sequence[Row], job: Job) -> None:
    """Try the settings of each contestant for a few seconds and show what each gives."""
    for row in rows:
        for sizes in row.contestant.trials if not row.reason else ():
            try:
                turn = take_turn(row.contestant, job, sizes=sizes)
            except PeerError as failure:
                say(f"{row.contestant.name}: {sizes}: {failure}")
                continue
            found = ", ".join(f"{r.per_second:.0f} at {n}" for n, r in turn.closed.items())
            say(f"{row.contestant.name:18} {sizes}: {found}; {turn.memory_mb:.0f} MB")


def machine() -> str:
    """Describe the machine."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "?")
    flags = next((x.split() for x in lines if x.startswith("flags")), [])
    kinds = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    memory = Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]
    return (
        f"{model}, {process.CORES} cores for each contestant, {int(memory) / 2**20:.0f} GiB"
        f" ({', '.join(kinds)}); {platform.system()}"
    )


def write_results(rows: Sequence[Row], limits: dict[str, LimitRow], job: Job, rounds: int) -> None:
    """Write RESULTS.md and print its table."""
    shown = table.main_table(rows, limits, job.connections)
    versions = ", ".join(f"{name} {venvs.version(None, name)}" for name in SHOWN_PACKAGES)
    lines = [
        "# Results",
        "",
        f"- Date: {dt.datetime.now(dt.UTC):%Y-%m-%d}",
        f"- Machine: {machine()}",
        f"- Python {platform.python_version()}; {versions}",
        f"- Command: `python {shlex.join(sys.argv)}`",
        f"- Rounds: {rounds}, interleaved, {job.seconds:g} s for each load; figures are medians.",
        "",
        "How to read it: [README.md](README.md).",
        "",
        *shown,
        "",
        "## Latencies, and twice the capacity with a deadline of 1 s",
        "",
        *table.detail_table(rows, job.connections),
    ]
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(shown))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--connections", default="1,8,64")
    parser.add_argument("--only", default="", help="names of contestants, with commas")
    parser.add_argument("--tune", action="store_true", help="try the contestants' settings instead")
    parser.add_argument("--no-results", action="store_true", help="don't write RESULTS.md")
    return parser.parse_args()


def main() -> None:
    """Run the contest."""
    given = arguments()
    names = given.only.split(",") if given.only else [c.name for c in LINEUP]
    process.adopt_orphans()
    prepare_model(WORK)
    texts = load_texts()
    limits = {kind: LimitRow(engine=kind) for kind in ENGINES}
    with open_limits(WORK) as engines:
        job = Job(
            work=WORK,
            texts=texts,
            reference=engines[FLOAT32].classify(texts[:CHECKED_TEXTS]),
            connections=[int(count) for count in given.connections.split(",")],
            seconds=given.seconds,
        )
        prepare_ir(job)
        rows = [enter(contestant) for contestant in LINEUP if contestant.name in names]
        if given.tune:
            tune(rows, job)
            return
        for number in range(given.rounds):
            say(f"round {number + 1} of {given.rounds}")
            measure_limits(engines, limits, texts)
            one_round(rows, job)
    if given.no_results:
        print("\n".join(table.main_table(rows, limits, job.connections)))
    else:
        write_results(rows, limits, job, given.rounds)


if __name__ == "__main__":
    try:
        main()
    except PeerError as failure:
        sys.exit(f"bench: {failure}")
