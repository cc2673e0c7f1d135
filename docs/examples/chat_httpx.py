"""Prints an answer as it comes, with httpx2; `import httpx` instead does the same."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import httpx2

URL = os.environ.get("URL", "http://127.0.0.1:8000")
# Silence is at most 10 s once there is a token; before it, the request may wait for its place.
TIMEOUT = httpx2.Timeout(5, read=130)


class ChatError(Exception):
    """The problem that the service answered with, or that ended the stream."""


def tokens(**fields: Any) -> Iterator[str]:  # noqa: ANN401  # the fields of /chat/stream
    """Yield the answer token by token; closing the generator stops the generation."""
    with httpx2.stream("POST", f"{URL}/chat/stream", json=fields, timeout=TIMEOUT) as response:
        if response.is_error:
            raise ChatError(json.loads(response.read()))
        for line in response.iter_lines():
            event = json.loads(line)
            if "error" in event:
                raise ChatError(event["error"])
            yield event["token"]
            if "done" in event:
                return
    raise ChatError("the connection was cut")


if __name__ == "__main__":
    for token in tokens(query="What is the capital of France?", max_tokens=64, temperature=0):
        sys.stdout.write(token)
        sys.stdout.flush()
