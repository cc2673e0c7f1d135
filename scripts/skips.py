"""What happens where a check can't be made for want of a tool."""

import os
import sys


def are_tools_required() -> bool:
    """Say whether a missing tool is a failure, as in CI: REQUIRE_TOOLS is set."""
    return bool(os.environ.get("REQUIRE_TOOLS"))


def skip(reason: str) -> None:
    """Say what isn't checked; end with status 1 where tools are required."""
    if are_tools_required():
        sys.exit(f"REQUIRE_TOOLS is set: {reason}")
    print(f"SKIPPED: {reason}")
