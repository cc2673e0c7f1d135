"""How the sentiment adapter is trained: rank-16 LoRA on all-MiniLM-L6-v2 and a new head.

Run it as `.venv/bin/python scripts/train_sentiment.py`; the model card beside the adapter says
which versions and which machine the committed one came from.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import transformers
from peft import LoraConfig, TaskType, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from scripts.eval_sentiment import (
    ADAPTER,
    LABELS,
    accuracies,
    accuracy_table,
    base_folder,
    predict,
)
from scripts.sentiment_data import DEFAULT_CACHE, Example, load_examples

BASE_NAME = "sentence-transformers/all-MiniLM-L6-v2"
# The five kinds of matrix in each layer's attention and feed-forward block. PEFT matches the end of
# a name, so "output.dense" is the attention's and the feed-forward's; the pooler's is not matched.
TARGETS = ["intermediate.dense", "key", "output.dense", "query", "value"]
MAX_TOKENS = 128  # no more than two of the training texts have more
HEAD = ["classifier"]  # trained whole and saved whole
# Batches drawn together, then sorted by length: little padding, still mixed.
SORT_WINDOW_BATCHES = 50
HOLDOUT_SHARE = 10  # with --holdout every tenth training text judges the recipe
LOG_EVERY_STEPS = 50


def load_base() -> Any:  # noqa: ANN401 -- transformers has no useful types
    """Return the base in float32 with an untrained head for the two labels."""
    # It would report at length that the head is untrained.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return AutoModelForSequenceClassification.from_pretrained(  # nosec B615  # a local folder
        base_folder(),
        dtype=torch.float32,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )


def pick_device() -> torch.device:
    """Return the GPU if torch can use one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the adapter's weights hang on, besides the data and the library versions."""

    epochs: int = 3
    peak_lr: float = 5e-4
    warmup_share: float = 0.06
    weight_decay: float = 0.01
    batch_size: int = 32
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    max_gradient_norm: float = 1.0
    seed: int = 20140601


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One text as token ids with its label."""

    ids: list[int]
    label: int


def encode(examples: list[Example]) -> list[Encoded]:
    """Tokenize the texts, cut at MAX_TOKENS."""
    tokenizer = AutoTokenizer.from_pretrained(  # nosec B615  # a local folder
        base_folder()
    )
    tokens = tokenizer([e.text for e in examples], truncation=True, max_length=MAX_TOKENS)
    pairs = zip(tokens["input_ids"], examples, strict=True)
    return [Encoded(ids=ids, label=example.label) for ids, example in pairs]


class HasIds(Protocol):
    """Something that has token ids."""

    @property
    def ids(self) -> list[int]:
        """Its tokens."""


T = TypeVar("T", bound=HasIds)


def batches(items: list[T], size: int, draw: torch.Generator) -> Iterator[list[T]]:
    """Yield one epoch in random order, each batch of texts of about one length."""
    order: list[int] = torch.randperm(len(items), generator=draw).tolist()
    window = size * SORT_WINDOW_BATCHES
    for start in range(0, len(order), window):
        near = sorted(order[start : start + window], key=lambda i: len(items[i].ids))
        groups = [near[first : first + size] for first in range(0, len(near), size)]
        for group in torch.randperm(len(groups), generator=draw).tolist():
            yield [items[i] for i in groups[group]]


def collate(batch: list[Encoded], device: torch.device) -> dict[str, torch.Tensor]:
    """Pad a batch to its longest text: ids and mask (batch, tokens), labels (batch,), int64."""
    width = max(len(item.ids) for item in batch)
    # 0 is the padding token of every BERT vocabulary.
    ids = torch.tensor([item.ids + [0] * (width - len(item.ids)) for item in batch])
    mask = torch.tensor([[1] * len(i.ids) + [0] * (width - len(i.ids)) for i in batch])
    labels = torch.tensor([item.label for item in batch])
    tensors = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def lr_factor(step: int, *, warmup: int, total: int) -> float:
    """Return the share of the peak rate at a step: up in a line, then down to zero in a line."""
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (total - step) / max(1, total - warmup))


def build_model(recipe: Recipe) -> Any:  # noqa: ANN401 -- PEFT has no useful types
    """Return the base with untrained adapters and an untrained head."""
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=TARGETS,
        modules_to_save=HEAD,
    )
    return get_peft_model(load_base(), config)


def train(
    model: Any,  # noqa: ANN401 -- PEFT has no useful types
    items: list[T],
    recipe: Recipe,
    device: torch.device,
    *,
    collate: Callable[[list[T], torch.device], dict[str, torch.Tensor]],
    is_bf16: bool = False,
) -> None:
    """Train the model in place; with `is_bf16` matrices are multiplied in bfloat16."""
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = AdamW(weights, lr=recipe.peak_lr, weight_decay=recipe.weight_decay)
    total = recipe.epochs * -(-len(items) // recipe.batch_size)
    warmup = max(1, round(total * recipe.warmup_share))
    schedule = LambdaLR(optimizer, lambda step: lr_factor(step, warmup=warmup, total=total))
    draw = torch.Generator().manual_seed(recipe.seed)
    progress = Progress(total)
    model.train()
    for _ in range(recipe.epochs):
        for batch in batches(items, recipe.batch_size, draw):
            with torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
                loss = model(**collate(batch, device)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, max_norm=recipe.max_gradient_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            progress.add(float(loss.detach()))


class Progress:
    """Prints the mean loss of the latest steps now and then."""

    def __init__(self, total_steps: int) -> None:
        self._total_steps = total_steps
        self._losses: list[float] = []
        self._started = time.monotonic()

    def add(self, loss: float) -> None:
        """Note the loss of one step."""
        self._losses.append(loss)
        steps = len(self._losses)
        if steps % LOG_EVERY_STEPS == 0:
            mean = sum(self._losses[-LOG_EVERY_STEPS:]) / LOG_EVERY_STEPS
            minutes = (time.monotonic() - self._started) / 60
            print(f"step {steps}/{self._total_steps} loss {mean:.3f} {minutes:.1f} min", flush=True)


def save(model: Any, folder: Path) -> None:  # noqa: ANN401
    """Write adapter_config.json and adapter_model.safetensors, and nothing else.

    Not `save_pretrained`, which would write over the model card and note this machine's path of the
    base. The weights are stored as float16; loaders turn them back to float32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    halves = {name: tensor.detach().cpu().half().contiguous() for name, tensor in state.items()}
    weights = folder / "adapter_model.safetensors"
    save_file(halves, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors makes it 0600, which a service under another user can't read
    config = model.peft_config["default"]
    config.base_model_name_or_path = BASE_NAME
    config.inference_mode = True
    config.save_pretrained(str(folder))
    path = folder / "adapter_config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    # Sets in memory, so in another order after each run; PEFT also adds heads of other models.
    fields["target_modules"] = TARGETS
    fields["modules_to_save"] = HEAD
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def split_holdout(examples: list[Example]) -> tuple[list[Example], list[Example]]:
    """Part the training texts into nine tenths to train on and one tenth to choose a recipe by."""
    texts = sorted({example.text for example in examples})
    held = set(texts[::HOLDOUT_SHARE])
    return [e for e in examples if e.text not in held], [e for e in examples if e.text in held]


def train_adapter(examples: list[Example], recipe: Recipe) -> Any:  # noqa: ANN401
    """Return the base with the adapter and the head that these examples teach it."""
    torch.manual_seed(recipe.seed)
    device = pick_device()
    model = build_model(recipe).to(device)
    train(model, encode(examples), recipe, device, collate=collate)
    return model


def main() -> None:
    """Train the sentiment adapter, write it and print its accuracy on the test split."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--out", type=Path, default=ADAPTER)
    parser.add_argument(
        "--holdout",
        action="store_true",
        help="to choose a recipe: train on nine tenths of the training split, judge by the rest",
    )
    options = parser.parse_args()
    examples = load_examples(options.cache)
    training = [example for example in examples if example.split == "train"]
    judged = [example for example in examples if example.split == "test"]
    out = options.out
    if options.holdout:
        training, judged = split_holdout(training)
        out = options.cache / "holdout"  # never over the committed adapter
    started = time.monotonic()
    save(train_adapter(training, Recipe()), out)
    minutes = (time.monotonic() - started) / 60
    print(f"trained on {len(training)} texts in {minutes:.1f} min")
    found = predict([example.text for example in judged], out)
    print(accuracy_table(accuracies(judged, found)))


if __name__ == "__main__":
    main()
