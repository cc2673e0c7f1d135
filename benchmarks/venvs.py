"""Each peer's own virtual environment, made when it is first needed."""

import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENVS = HERE / ".venvs"
SERVICE_VENV = HERE.parent / ".venv"
INSTALL_TIMEOUT_S = 1800
PIP_FLAGS = ("--disable-pip-version-check", "--no-input", "--quiet")


class PeerError(Exception):
    """A contestant can't take part; the message is its row's reason."""


def requirements(peer: str) -> Path:
    """Return a peer's pinned file."""
    return HERE / "contestants" / f"requirements-{peer}.txt"


def bin_folder(peer: str | None) -> Path:
    """Return the folder of an environment's commands; None is this service's own."""
    return (SERVICE_VENV if peer is None else VENVS / peer) / "bin"


def prepare(peer: str) -> None:
    """Make and fill a peer's environment, unless it holds these very pins already.

    Raises:
        PeerError: it can't be installed, and why.

    """
    digest = hashlib.sha256(requirements(peer).read_bytes()).hexdigest()
    marker = VENVS / peer / ".installed"
    if marker.is_file() and marker.read_text(encoding="utf-8") == digest:
        return
    print(f"bench: installing {peer} (minutes, once)", flush=True)
    python = bin_folder(peer) / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(VENVS / peer)])
    _run([str(python), "-m", "pip", "install", *PIP_FLAGS, "-r", str(requirements(peer))])
    marker.write_text(digest, encoding="utf-8")


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise PeerError(f"not installed within {INSTALL_TIMEOUT_S} s") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise PeerError(f"can't be installed: {(errors or ['pip failed'])[-1][:200]}")


def version(peer: str | None, package: str) -> str:
    """Return the version of a package in an environment."""
    code = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
    done = subprocess.run(
        [bin_folder(peer) / "python", "-c", code, package],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "?"
