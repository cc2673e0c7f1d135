"""Shows that each required call of a tool validates: 50 prompts on the packaged chat model; else 1.

    python -m benchmarks.show_tools [--hot]

Its template knows no tools. The service is started as `make serve` starts it, and asked with five
tools and `tool_choice` `required`, or the name of one, whole and streamed in turn; the arguments of
each call are held against the tool's schema with `jsonschema`. --hot: at temperature 1.5, not 0.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
from jsonschema import Draft202012Validator, ValidationError  # type: ignore[import-untyped]

from benchmarks.show_jobs import Service, service

AT_ONCE = 4
HOT_TEMPERATURE = 1.5
TEXT = {"type": "string"}
PLACE = {
    "type": "object",
    "properties": {"city": TEXT, "country": {"type": ["string", "null"]}},
    "required": ["city"],
}
TOOLS: Mapping[str, dict[str, Any]] = {
    "get_weather": {
        "type": "object",
        "properties": {
            "place": {"$ref": "#/$defs/Place"},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
        },
        "required": ["place", "unit", "days"],
        "additionalProperties": False,
        "$defs": {"Place": PLACE},
    },
    "send_mail": {
        "type": "object",
        "properties": {
            "to": {"type": "array", "items": TEXT, "minItems": 1},
            "subject": {**TEXT, "maxLength": 40},
            "body": TEXT,
        },
        "required": ["to", "subject", "body"],
    },
    "search": {
        "type": "object",
        "properties": {"query": TEXT, "filters": {"anyOf": [PLACE, {"type": "null"}]}},
        "required": ["query"],
    },
    "add": {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
    },
    "now": {"type": "object", "properties": {}},
}
PROMPTS = (
    "What is the weather in Paris?",
    "How warm will it be in Cairo, in Egypt, over the next 99 days?",
    "Write to ann@example.com that I am late.",
    "Tell everybody in the team about the party on Friday, at length.",
    "Find hotels in Rome.",
    "What is 2 plus 40?",
    "Add minus one and a half to a million.",
    "What time is it?",
    "Answer in plain words, without calling anything.",
    'Answer with [-1.5, "x"] and no more.',
)
VALID, INVALID = "valid", "invalid"


def asked() -> Iterator[dict[str, Any]]:
    """Yield 50 requests: each prompt with all tools, twice, and with three that are named."""
    tools = [
        {"type": "function", "function": {"name": name, "parameters": schema}}
        for name, schema in TOOLS.items()
    ]
    for number, prompt in enumerate(PROMPTS):
        names = [*TOOLS][number % len(TOOLS) :] + [*TOOLS][: number % len(TOOLS)]
        choices = ["required", "required", *map(named, names[:3])]
        for seed, choice in enumerate(choices):
            yield {
                "messages": [{"role": "user", "content": prompt}],
                "tools": tools,
                "tool_choice": choice,
                "seed": seed,
                "stream": bool((number + seed) % 2),
            }


def ask(client: openai.OpenAI, request: dict[str, Any], temperature: float) -> tuple[str, str]:
    """Ask for a call; return how it came out, and what was called."""
    stream = request.pop("stream")
    fields = {"model": "smollm2", "temperature": temperature, **request}
    if stream:
        with client.chat.completions.stream(**fields) as events:
            completion = events.get_final_completion()
    else:
        completion = client.chat.completions.create(**fields)
    (choice,) = completion.choices
    calls = choice.message.tool_calls or []
    said = ", ".join(f"{call.function.name}({call.function.arguments})" for call in calls)
    try:
        is_one = len(calls) == 1 and choice.finish_reason == "tool_calls"
        for call in calls:
            Draft202012Validator(TOOLS[call.function.name]).validate(
                json.loads(call.function.arguments)
            )
            wanted = request["tool_choice"]
            is_one = is_one and wanted in ("required", named(call.function.name))
    except (KeyError, ValueError, ValidationError):
        is_one = False
    return VALID if is_one else INVALID, f"{choice.finish_reason}: {said}"


def named(name: str) -> dict[str, Any]:
    """Return the choice of one tool."""
    return {"type": "function", "function": {"name": name}}


def show(made: Service, temperature: float) -> Counter[str]:
    """Ask everything; print what isn't valid, and return how often each outcome came."""
    requests = list(asked())
    with (
        openai.OpenAI(base_url=f"{made.url}/v1", api_key="none", timeout=300) as client,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):
        outcomes = list(threads.map(lambda one: ask(client, one, temperature), requests))
    for request, (outcome, said) in zip(requests, outcomes, strict=True):
        if outcome != VALID:
            print(f"{outcome}: {request['messages'][0]['content']}\n  {said[:200]}")
    called = Counter(said.split("(")[0] for _, said in outcomes)
    print(", ".join(f"{count} {name}" for name, count in called.most_common()))
    return Counter(outcome for outcome, _ in outcomes)


def main() -> int:
    """Run the show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hot", action="store_true")
    temperature = HOT_TEMPERATURE if parser.parse_args().hot else 0.0
    with tempfile.TemporaryDirectory() as name, service(Path(name)) as made:
        counted = show(made, temperature)
    print(f"{counted[VALID]} of {counted.total()} calls validate, at temperature {temperature}")
    return 1 if counted[INVALID] else 0


if __name__ == "__main__":
    sys.exit(main())
