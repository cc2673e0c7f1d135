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


def tokens(**asked: Any) -> Iterator[str]:  # noqa: ANN401  # the fields of /chat/stream
    """Yield the answer token by token; closing the generator stops the generation."""
    with httpx2.stream("POST", f"{URL}/chat/stream", json=asked, timeout=TIMEOUT) as answer:
        if answer.is_error:
            raise ChatError(json.loads(answer.read()))
        for line in answer.iter_lines():
            said = json.loads(line)
            if "error" in said:
                raise ChatError(said["error"])
            yield said["token"]
            if "done" in said:
                return
    raise ChatError("the connection was cut")


if __name__ == "__main__":
    for token in tokens(query="What is the capital of France?", max_tokens=64, temperature=0):
        sys.stdout.write(token)
        sys.stdout.flush()
