"""Finds programs that not everybody has: without one its test is skipped, and fails in CI."""

import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from scripts.skips import are_tools_required


def tool(name: str) -> str:
    """Find a program, in this environment first."""
    found = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
    if found is None:
        missing(name)
    return found


def missing(name: str) -> NoReturn:
    """Skip the test, or fail it where a missing tool is a failure."""
    if are_tools_required():
        pytest.fail(f"REQUIRE_TOOLS is set, and {name} is not installed")
    pytest.skip(f"{name} is not installed")
