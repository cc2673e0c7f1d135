"""No file is left out of a tier that has tests in it."""

from pathlib import Path

import pytest
from tiers import is_left_out

TESTS = Path(__file__).parent
QUICK = "not system and not browser"


def files(chosen: str) -> set[str]:
    found = (file for file in TESTS.rglob("test_*.py") if not is_left_out(file, chosen))
    return {file.relative_to(TESTS).as_posix() for file in found}


def test_the_quick_tests_are_all_but_those_of_the_two_folders() -> None:
    every = files("")
    left_out = {name for name in every if name.startswith(("system/", "page/"))}
    assert len(left_out) > 20
    assert files(QUICK) == every - left_out


def test_files_of_a_tier_are_those_that_spell_its_marker() -> None:
    assert {"system/test_drain.py", "test_openapi.py"} <= files("system and not alone")
    assert "test_queue.py" not in files("system and not alone")
    assert {"system/test_leaving.py", "system/test_storage.py"} <= files("system and alone")
    assert "system/test_drain.py" not in files("system and alone")
    assert files("browser") == {name for name in files("") if name.startswith("page/")}


@pytest.mark.parametrize("chosen", ["", "(core)", "core or system"])
def test_what_is_not_understood_leaves_nothing_out(chosen: str) -> None:
    assert files(chosen) == files("")


def test_all_tests_of_the_folder_are_marked() -> None:
    for file in (TESTS / "system").glob("test_*.py"):
        lines = file.read_text(encoding="utf-8").splitlines()
        assert any(line.startswith("pytestmark") and "mark.system" in line for line in lines), file
