"""What happens where a check can't be made for want of a tool."""

import os
import sys


def skip(reason: str) -> None:
    """Say what isn't checked; end with status 1 where REQUIRE_TOOLS is set, as in CI."""
    if os.environ.get("REQUIRE_TOOLS"):
        sys.exit(f"REQUIRE_TOOLS is set: {reason}")
    print(f"SKIPPED: {reason}")
