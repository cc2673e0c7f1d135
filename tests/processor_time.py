"""A plugin that says which tests take the processor's time: `make test ORDER="-p processor_time"`.

On a machine that others use too it says more than the clock. A process that a test leaves to those
after it, such as a server, counts for the one that ends it.
"""

import os
from collections import defaultdict
from collections.abc import Generator

import pytest

SHOWN = 40
ATTRIBUTE = "processor_s"  # of a report; workers send it along
_spent: defaultdict[str, float] = defaultdict(float)
_until = [0.0]


def _now() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Leave out what collecting took."""
    _until[0] = _now()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what a test's set-up, call or tear-down took."""
    report = yield
    now = _now()
    setattr(report, ATTRIBUTE, now - _until[0])
    _until[0] = now
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add it to its module's and to its test's."""
    spent: float = getattr(report, ATTRIBUTE, 0.0)
    for name in {report.nodeid, report.nodeid.partition("::")[0]}:
        _spent[name] += spent


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show modules, then tests, the costliest first."""
    for title, is_shown in (("modules", False), ("tests", True)):
        terminalreporter.section(f"processor time of {title}")
        found = [(name, s) for name, s in _spent.items() if ("::" in name) is is_shown]
        found.sort(key=lambda one: -one[1])
        terminalreporter.write_line(f"{sum(s for _, s in found):8.1f} all")
        for name, spent in found[:SHOWN]:
            terminalreporter.write_line(f"{spent:8.1f} {name}")
