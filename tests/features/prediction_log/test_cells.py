"""Cells that a spreadsheet would run are disarmed, and all others stay as they are."""

import pytest

from app.features.prediction_log.cells import escape

FORMULAS = [
    "=1+1",
    "+1",
    "-2+3",
    "@SUM(1)",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "\nplain",
    "  =1+1",
    "\u00a0=1+1",
    "\u3000\u200b=1+1",
    "\ufeff=1+1",
    '"=1+1',
    "'=1+1",
    ' "\n=1+1',
    "\uff1d1+1",
    "\uff0b1",
    "\uff0d1",
    "\uff20SUM(1)",
    "\ufe66 1",
    "\u22121",
]
PLAIN = ["plain", "a=b", "1 - 2", "(=)", "é", "😀", "#1", '"quoted"', "...", "100 %", "什么"]


@pytest.mark.parametrize("text", FORMULAS, ids=ascii)
def test_what_a_spreadsheet_would_run_has_an_apostrophe_before_it(text: str) -> None:
    assert escape(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", " ", *PLAIN], ids=ascii)
def test_all_else_stays(text: str) -> None:
    assert escape(text) == text
