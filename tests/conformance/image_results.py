"""The table of docs/models.md about image models, and the line of each refusal."""

from collections.abc import Iterator, Mapping

from image_kinds import HEADS, IMAGE_KINDS
from outcomes import FLOAT32, TORCH, Outcome, Verdict
from pictures import pictures
from results import cell, matrix
from tiny_images import ARCHITECTURES

from scripts.document import table

Outcomes = Mapping[str, Outcome]


def render(head: str, results: Mapping[str, Outcomes]) -> str:
    """Return all that stands between the markers."""
    cells = {name: cell(found) for name, found in results.items()}
    counts = {word: list(cells.values()).count(word) for word in ("right", "torch", "refused")}
    sums = ", ".join(f"{count} {word}" for word, count in counts.items())
    said = (
        f"{head} {len(cells)} kinds, {len(ARCHITECTURES)} architectures, {len(pictures())} images"
        f" each: {sums}; 0 silently wrong."
    )
    return "\n\n".join((
        said,
        matrix(ARCHITECTURES, {name: f"image {{}}, {name}" for name in HEADS}, cells),
        table(("not served", "by", "line"), list(_lines(results))),
    ))  # fmt: skip


def _lines(results: Mapping[str, Outcomes]) -> Iterator[tuple[str, str, str]]:
    """Yield which architectures are refused, by which engine, and how."""
    groups: dict[tuple[str, str], dict[str, None]] = {}
    for name, found in results.items():
        engine = TORCH if found[TORCH].verdict is Verdict.REFUSED else FLOAT32
        if found[engine].verdict is Verdict.REFUSED:
            by = "both" if engine is TORCH else engine
            kinds = groups.setdefault((by, found[engine].line), {})
            kinds[IMAGE_KINDS[name].architecture] = None
    for (engine, line), architectures in groups.items():
        plain = line.replace("|", "¦").replace("`", "")
        yield ", ".join(architectures), engine, f"`{plain}`"
