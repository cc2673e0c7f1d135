"""How the adapter for entities is trained: rank-16 LoRA on all-MiniLM-L6-v2, and a head for tokens.

Run it as `.venv/bin/python scripts/train_ner.py`; `scripts/eval_ner.py` judges what it writes.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModelForTokenClassification, AutoTokenizer

from scripts.eval_ner import ADAPTER, LABELS, report
from scripts.eval_sentiment import base_folder
from scripts.ner_data import DEFAULT_CACHE, Sentence, sentences
from scripts.train_sentiment import (
    HEAD,
    TARGETS,
    Recipe,
    pick_device,
    save,
    train,
)

SENTENCES = 6_000
EPOCHS = 2
IGNORED = -100  # what torch's loss leaves out: special tokens and padding
SEED = 20260101


class Item:
    """A sentence as token ids, with a label for each."""

    def __init__(self, ids: list[int], labels: list[int]) -> None:
        self.ids, self.labels = ids, labels


def encode(examples: list[Sentence]) -> list[Item]:
    """Tokenise; a token that begins within a mention has its label."""
    tokenizer = AutoTokenizer.from_pretrained(base_folder())  # nosec B615  # a local folder
    texts = [example.text for example in examples]
    tokens = tokenizer(texts, return_offsets_mapping=True, truncation=True, max_length=128)
    rows = zip(tokens["input_ids"], tokens["offset_mapping"], examples, strict=True)
    return [
        Item(ids, [_label(start, end, example) for start, end in places])
        for ids, places, example in rows
    ]


def _label(start: int, end: int, example: Sentence) -> int:
    if start == end:
        return IGNORED  # [CLS] and [SEP]
    for mention in example.mentions:
        if mention.start <= start < mention.end:
            part = "B" if start == mention.start else "I"
            return LABELS.index(f"{part}-{mention.label}")
    return LABELS.index("O")


def collate(batch: list[Item], device: torch.device) -> dict[str, torch.Tensor]:
    """Pad a batch to its longest sentence: ids, mask and labels, each (batch, tokens) int64."""
    width = max(len(item.ids) for item in batch)

    def padded(rows: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([row + [filler] * (width - len(row)) for row in rows]).to(device)

    return {
        "input_ids": padded([item.ids for item in batch], 0),
        "attention_mask": padded([[1] * len(item.ids) for item in batch], 0),
        "labels": padded([item.labels for item in batch], IGNORED),
    }


def build_model(recipe: Recipe) -> Any:  # noqa: ANN401 -- PEFT has no useful types
    """Return the base with untrained adapters and an untrained head."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    base = AutoModelForTokenClassification.from_pretrained(  # nosec B615  # a local folder
        base_folder(), dtype=torch.float32, num_labels=len(LABELS)
    )
    config = LoraConfig(
        task_type=TaskType.TOKEN_CLS,
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=TARGETS,
        modules_to_save=HEAD,
    )
    return get_peft_model(base, config)


def main() -> None:
    """Train the adapter, write it, and print how good it is."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--out", type=Path, default=ADAPTER)
    options = parser.parse_args()
    recipe = Recipe(epochs=EPOCHS, seed=SEED)
    torch.manual_seed(recipe.seed)
    items = encode(sentences("train", SENTENCES, cache=options.cache, seed=recipe.seed))
    device = pick_device()
    model = build_model(recipe).to(device)
    started = time.monotonic()
    train(model, items, recipe, device, collate=collate, is_bf16=True)
    print(f"trained on {len(items)} sentences in {(time.monotonic() - started) / 60:.1f} min")
    save(model, options.out)
    print(report(options.out, options.cache))


if __name__ == "__main__":
    main()
