"""Explore the property tests with fresh seeds for a while, and print what to pin."""

import argparse
import os
import re
import secrets
import subprocess
import sys
import time

LONGEST_ROUND_S = 300
# Hypothesis marks the tests that it runs.
PYTEST = (sys.executable, "-m", "pytest", "-q", "-m", "hypothesis and not system and not browser")
FALSIFYING = re.compile(r"^E?\s*(Falsifying example:.*?^E?\s*\))", re.MULTILINE | re.DOTALL)


def explore(seed: int) -> str | None:
    """Run each property test with examples of this seed; return what pytest said if one failed."""
    done = subprocess.run(
        [*PYTEST, f"--hypothesis-seed={seed}"],
        env={**os.environ, "HYPOTHESIS_PROFILE": "fresh"},
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_ROUND_S,
    )
    return done.stdout + done.stderr if done.returncode else None


def main() -> None:
    """Start rounds until the time is up; the first failure ends it with status 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    until = time.monotonic() + parser.parse_args().seconds
    rounds = 0
    while rounds == 0 or time.monotonic() < until:
        seed = secrets.randbelow(2**32)
        if failure := explore(seed):
            print(failure)
            pins = FALSIFYING.findall(failure) or ["nothing: see above"]
            print(f"fuzz: with --hypothesis-seed={seed}; to pin as @example:", *pins, sep="\n")
            sys.exit(1)
        rounds += 1
    print(f"fuzz: {rounds} rounds with fresh seeds, no finding")


if __name__ == "__main__":
    main()
