"""What `make audit` makes of a vulnerability service's answer."""

import pytest

from scripts.audit import CLEAN, FOUND, UNKNOWN, judge

GOOD = {"name": "fine", "version": "1.0", "vulns": []}
BAD = {"name": "old", "version": "2.1", "vulns": [{"id": "CVE-1", "fix_versions": ["2.2"]}]}
SKIPPED = {"name": "strange", "skip_reason": "Dependency not found"}


def test_pins_that_the_service_knows_and_finds_nothing_about_are_clean() -> None:
    assert judge([GOOD]) == CLEAN


def test_a_pin_that_the_service_does_not_know_is_not_clean(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert judge([GOOD, SKIPPED]) == UNKNOWN
    assert "1 of 2 pins are unknown there: strange" in capsys.readouterr().out


def test_a_vulnerability_is_named_with_the_version_that_mends_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert judge([SKIPPED, BAD]) == FOUND
    assert "old 2.1: CVE-1, mended in 2.2" in capsys.readouterr().out
