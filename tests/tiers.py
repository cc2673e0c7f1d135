"""Which files have no test of a tier: importing all of them takes longer than some tiers' tests."""

from pathlib import Path

# All tests of a folder have the marker.
TESTS = Path(__file__).parent
FOLDERS = {"system": TESTS / "system", "browser": TESTS / "page"}


def is_left_out(file: Path, chosen: str) -> bool:
    """Say whether no test of a file is chosen by `-m`; only if that is sure."""
    if not file.name.startswith("test_") or "(" in chosen or " or " in chosen:
        return False
    return any(_lacks(file, term.strip()) for term in chosen.split(" and ") if term.strip())


def _lacks(file: Path, term: str) -> bool:
    """Say whether no test of a file fulfils one term: a marker, or `not` and a marker."""
    marker = term.removeprefix("not ")
    is_of_folder = file.parent == FOLDERS.get(marker)
    if marker != term:
        return is_of_folder
    return not is_of_folder and f"mark.{marker}" not in file.read_text(encoding="utf-8")
