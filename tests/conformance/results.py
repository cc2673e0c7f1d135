"""The tables of docs/models.md: what became of each kind, and the line of each refusal."""

from collections.abc import Iterable, Iterator, Mapping

from architectures import ARCHITECTURES
from kinds import EMBEDDERS, HEADS, KINDS, POOLINGS, Kind
from outcomes import FLOAT32, TORCH, Outcome, Verdict

from scripts.document import table

Outcomes = Mapping[str, Outcome]
NO_CLASS = "no"
MEANING = (
    "“right”: served, and answered as by its library on both engines. “torch”: so on torch, and"
    " OpenVINO refuses it, so that `auto` serves it on torch. “refused”: at load, by a line of the"
    f" last table. “{NO_CLASS}”: transformers has no such class."
)


def cell(found: Outcomes) -> str:
    """Return what one kind's cell says.

    Raises:
        AssertionError: it is silently wrong, which no table should have to say.

    """
    assert all(outcome.verdict is not Verdict.WRONG for outcome in found.values())
    if found[TORCH].verdict is Verdict.REFUSED:
        return "refused"
    return "right" if found[FLOAT32].verdict is Verdict.RIGHT else "torch"


def matrix(rows: Iterable[str], columns: Mapping[str, str], cells: Mapping[str, str]) -> str:
    """Return a table with a row for each, and a cell for each kind; columns are title → pattern."""
    lines = [(row, *(cells.get(p.format(row), NO_CLASS) for p in columns.values())) for row in rows]
    return table(("", *columns), lines)


def render(head: str, results: Mapping[str, Outcomes]) -> str:
    """Return all that stands between the markers."""
    cells = {name: cell(found) for name, found in results.items()}
    counts = {word: list(cells.values()).count(word) for word in ("right", "torch", "refused")}
    sums = ", ".join(f"{count} {word}" for word, count in counts.items())
    return "\n\n".join((
        f"{head} {len(cells)} kinds, {len(ARCHITECTURES)} architectures: {sums}; 0 silently wrong.",
        MEANING,
        matrix(ARCHITECTURES, {name: f"{{}}, {name}" for name in HEADS}, cells),
        matrix(POOLINGS, {name: f"{name}, {{}}" for name in EMBEDDERS}, cells),
        table(("refused", "by", "line"), list(_lines(results))),
    ))  # fmt: skip


def _lines(results: Mapping[str, Outcomes]) -> Iterator[tuple[str, str, str]]:
    """Yield which kinds are refused, by which engine, and how; those with one line together."""
    groups: dict[tuple[str, str], list[Kind]] = {}
    for name, found in results.items():
        kind = KINDS[name]
        engine = TORCH if found[TORCH].verdict is Verdict.REFUSED else FLOAT32
        if found[engine].verdict is not Verdict.REFUSED:
            continue
        # Lines that differ in the class's name alone are one.
        line = found[engine].line.replace(kind.model_class, f"…{kind.head.ending}")
        both = "both" if engine is TORCH else engine
        groups.setdefault((both, line), []).append(kind)
    for (engine, line), kinds in groups.items():
        yield _named(kinds), engine, f"`{line.replace('|', '¦').replace('`', '')}`"


def _named(kinds: list[Kind]) -> str:
    """Return the kinds' names in few words: architectures with the same heads together."""
    by_architecture: dict[str, list[str]] = {}
    for kind in kinds:
        by_architecture.setdefault(kind.architecture, []).append(kind.name)
    by_heads: dict[tuple[str, ...], list[str]] = {}
    for architecture, heads in by_architecture.items():
        by_heads.setdefault(tuple(heads), []).append(architecture)
    return "; ".join(f"{', '.join(heads)}: {', '.join(names)}" for heads, names in by_heads.items())
