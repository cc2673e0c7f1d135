"""How good the committed adapter for entities is on names and sentences that it hasn't seen."""

import argparse
import sys
from pathlib import Path

from app.core.cores import core_count
from app.engines.base import EngineRequest, Task, TokenClassifier
from app.engines.loader import load_engine
from app.services.entities import Aggregation, spans_of
from scripts.eval_sentiment import BATCH_SIZE, base_folder
from scripts.ner_data import DEFAULT_CACHE, Mention, Sentence, gold, sentences

ADAPTER = Path(__file__).resolve().parents[1] / "app/models/adapters/ner"
LABELS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
KINDS = ("PER", "ORG", "LOC")
TEST_SENTENCES, TEST_SEED = 1_000, 1


def predict(texts: list[str], adapter: Path = ADAPTER) -> list[set[Mention]]:
    """Return what `/ner` finds in texts, by the service's own torch engine."""
    request = EngineRequest(
        name="ner",
        task=Task.NER,
        engine="torch",
        folder=base_folder(),
        adapter=adapter,
        labels=LABELS,
        threads=core_count(),
    )
    engine = load_engine(request)
    assert isinstance(engine, TokenClassifier)  # noqa: S101 -- what its task loads
    found = []
    for start in range(0, len(texts), BATCH_SIZE):
        rows = engine.classify_tokens(engine.encode(texts[start : start + BATCH_SIZE]))
        for row in rows:
            spans = spans_of(row, engine.labels, Aggregation.FIRST)
            found.append({Mention(span.start, span.end, span.label) for span in spans})
    return found


def table(examples: list[Sentence], found: list[set[Mention]]) -> str:
    """Return precision, recall and F1 of whole names, as the markdown table of the model card."""
    lines = [
        "| | names | found | right | precision | recall | F1 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for kind in (*KINDS, "all"):
        kinds = KINDS if kind == "all" else (kind,)
        wanted = [{m for m in one.mentions if m.label in kinds} for one in examples]
        answered = [{m for m in one if m.label in kinds} for one in found]
        names, answers = sum(map(len, wanted)), sum(map(len, answered))
        right = sum(len(w & a) for w, a in zip(wanted, answered, strict=True))
        precision, recall = right / max(1, answers), right / max(1, names)
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        shares = " | ".join(f"{100 * share:.1f} %" for share in (precision, recall, f1))
        lines.append(f"| {kind} | {names} | {answers} | {right} | {shares} |")
    return "\n".join(lines)


def report(adapter: Path = ADAPTER, cache: Path = DEFAULT_CACHE) -> str:
    """Return both tables of the model card."""
    sets = (sentences("test", TEST_SENTENCES, cache=cache, seed=TEST_SEED), gold())
    return "\n\n".join(table(one, predict([s.text for s in one], adapter)) for one in sets)


def main() -> int:
    """Print how many names of each kind are found, and how many of those found are right."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the card differs")
    options = parser.parse_args()
    found = report(ADAPTER, options.cache)
    print(found)
    card = (ADAPTER / "README.md").read_text(encoding="utf-8") if options.check else found
    if missing := [one for one in found.split("\n\n") if one not in card]:
        print(f"eval_ner: the model card has another table than\n{missing[0]}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
