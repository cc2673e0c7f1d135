"""Runs a module in a process of its own: what crashes or hangs there ends no report."""

import json
import subprocess
import sys
from typing import Any

from app.errors import StartupError


class ChildTimeoutError(StartupError):
    """The process didn't end in time, and was ended."""

    reason = "child_timeout"


class ChildDiedError(StartupError):
    """The process ended without a report."""

    reason = "child_died"


def ask_child(module: str, *arguments: str, timeout_s: float) -> dict[str, Any]:
    """Call `main` of a module in a process of its own; return what it prints last, as JSON.

    Raises:
        ChildTimeoutError: it takes longer.
        ChildDiedError: it prints no report; says how it ended.

    """
    program = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; main()"
    command = [sys.executable, "-P", "-c", program, *arguments]
    try:
        child = subprocess.run(  # noqa: S603  # our own module
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise ChildTimeoutError(f"not loaded within {timeout_s:g} s") from None
    try:
        report: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])  # libraries print above
    except (ValueError, LookupError):
        raise ChildDiedError(f"the process that loaded it ended with {child.returncode}") from None
    return report
