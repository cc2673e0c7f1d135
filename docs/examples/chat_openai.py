"""Prints an answer as it comes, with OpenAI's client."""

import os
import sys

from openai import OpenAI

URL = os.environ.get("URL", "http://127.0.0.1:8000")

client = OpenAI(base_url=f"{URL}/v1", api_key="none")
stream = client.chat.completions.create(
    model="smollm2",
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    max_tokens=64,
    temperature=0,
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    for choice in chunk.choices:
        sys.stdout.write(choice.delta.content or "")
        sys.stdout.flush()
    if chunk.usage:
        sys.stdout.write(f"\n({chunk.usage.completion_tokens} tokens)\n")
