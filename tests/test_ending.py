"""Scripts that start processes end them when they are told to end themselves."""

import signal
import subprocess
import sys
from pathlib import Path

from scripts.ending import STATUS

ROOT = Path(__file__).parent.parent
STARTS = (
    "import ProcessPoolExecutor",
    "from process import service",
    "from scripts.image_container import",
    "from scripts.ray_local import",
)
CLEANS_UP_IN_TWO_STEPS = """
from scripts.ending import clean_up_on_sigterm

clean_up_on_sigterm()
try:
    print("started", flush=True)
    input()
finally:
    print("one", flush=True)
    input()
    print("two", flush=True)
"""


def test_a_script_that_is_told_to_end_twice_cleans_up_to_its_end() -> None:
    script = subprocess.Popen(
        [sys.executable, "-c", CLEANS_UP_IN_TWO_STEPS],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with script:
        assert script.stdin is not None
        assert script.stdout is not None
        assert script.stdout.readline() == "started\n"
        script.send_signal(signal.SIGTERM)
        assert script.stdout.readline() == "one\n"
        script.send_signal(signal.SIGTERM)
        script.stdin.write("\n")
        script.stdin.flush()
        assert script.stdout.readline() == "two\n"
    assert script.returncode == STATUS


def test_each_script_that_starts_processes_cleans_up_on_sigterm() -> None:
    codes = {file.name: file.read_text("utf-8") for file in (ROOT / "scripts").glob("*.py")}
    commands = {name: code for name, code in codes.items() if "\ndef main() -> None:" in code}
    starting = {name for name, code in commands.items() if any(start in code for start in STARTS)}
    assert "clients_check.py" in starting
    assert not [name for name in starting if "    clean_up_on_sigterm()" not in codes[name]]
