"""Look for pins with known vulnerabilities and for unsafe code, with pip-audit and bandit.

Ends with 0 when nothing was found, 1 with findings, and 3 when nothing was found but some pins
could not be asked about: no news is not good news. `make audit` shows the status as `Error 3`.
"""

import json
import subprocess
import sys
from typing import Any

CLEAN, FOUND, UNKNOWN = 0, 1, 3
PINS = ("requirements.txt", "requirements-dev.txt", "requirements-models.txt")
CODE = ("app", "scripts")
# Both give the same advisories; where a mirror stands for PyPI, it may lack the first.
SERVICES = ("pypi", "osv")
TIMEOUT_S = 600
SHOWN_NAMES = 5


def say(line: str) -> None:
    """Say one line, in order with those of the tools."""
    print(f"audit: {line}", flush=True)


def run_tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a tool of the environment that runs this."""
    command = [sys.executable, "-m", name, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)


def ask(service: str) -> list[dict[str, Any]] | None:
    """Return what a vulnerability service says of each pin; None when it doesn't answer.

    The pins are complete, so that pip need not resolve, or download, anything.
    """
    files = [part for path in PINS for part in ("--requirement", path)]
    plain = ("--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json")
    done = run_tool("pip_audit", *files, *plain, "--vulnerability-service", service)
    try:
        dependencies: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        say(f"{service} gives no answer: {said[-1][:200]}")
        return None
    return dependencies


def judge(dependencies: list[dict[str, Any]]) -> int:
    """Say what is known of the pins; a pin that the service doesn't know may be vulnerable."""
    vulnerable = [
        f"{found['name']} {found['version']}: {flaw['id']}, mended in "
        + (", ".join(flaw["fix_versions"]) or "no version yet")
        for found in dependencies
        for flaw in found.get("vulns", [])
    ]
    skipped = [found["name"] for found in dependencies if "skip_reason" in found]
    for line in vulnerable:
        say(line)
    if skipped:
        names = ", ".join(skipped[:SHOWN_NAMES])
        say(f"{len(skipped)} of {len(dependencies)} pins are unknown there: {names}, ...")
    if vulnerable:
        return FOUND
    return UNKNOWN if skipped else CLEAN


def audit_pins() -> int:
    """Ask one service after the other, until one knows every pin or of a vulnerability."""
    for service in SERVICES:
        dependencies = ask(service)
        if dependencies is not None and (status := judge(dependencies)) != UNKNOWN:
            say(f"{len(dependencies)} pins against {service}: {'clean' if not status else 'BAD'}")
            return status
    say("NOT CHECKED: no vulnerability service could be asked about every pin")
    return UNKNOWN


def audit_code() -> int:
    """Show bandit's findings; [tool.bandit] of pyproject.toml says what is judged elsewhere."""
    done = run_tool("bandit", "--quiet", "--configfile", "pyproject.toml", "--recursive", *CODE)
    print(done.stdout + done.stderr, end="", flush=True)
    say(f"bandit over {', '.join(CODE)}: {'findings above' if done.returncode else 'clean'}")
    return FOUND if done.returncode else CLEAN


def main() -> int:
    """Do both; findings weigh more than questions without an answer."""
    found = {audit_code(), audit_pins()}
    return FOUND if FOUND in found else max(found)


if __name__ == "__main__":
    sys.exit(main())
