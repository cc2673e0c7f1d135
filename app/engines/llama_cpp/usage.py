"""What llama.cpp's counts of tokens say a generation cost."""

from collections.abc import Mapping
from typing import Any

from app.engines.chat_base import Usage


def usage_of(counts: Mapping[str, Any], *, completion_tokens: int) -> Usage:
    """Return the usage of one generation.

    Args:
        counts: `usage` of its last chunk; empty for one that was stopped.
        completion_tokens: where they don't say.

    """
    prompt = counts.get("prompt_tokens", 0)
    cached = (counts.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=counts.get("completion_tokens", completion_tokens),
        cached_tokens=cached,
        cache_write_tokens=prompt - cached,  # a slot keeps all that was read in it
    )
