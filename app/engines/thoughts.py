"""What a model thinks before it answers, where its engine tells that from the answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What servers call it in a delta or a message: llama.cpp, DeepSeek and most; OpenRouter and vLLM.
FIELDS = ("reasoning_content", "reasoning")


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of what a model thinks; no text, so that nothing takes it for the answer."""

    text: str


def thought_in(delta: Mapping[str, Any]) -> str:
    """Return what a delta, or a message, of a server has of thoughts; "" for none."""
    found = (delta.get(field) for field in FIELDS)
    return next((text for text in found if isinstance(text, str) and text), "")
