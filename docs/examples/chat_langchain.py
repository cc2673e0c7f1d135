"""Prints an answer as it comes, with LangChain."""

import os
import sys

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

URL = os.environ.get("URL", "http://127.0.0.1:8000")

chat = ChatOpenAI(
    model="smollm2",
    base_url=f"{URL}/v1",
    api_key=SecretStr("none"),
    temperature=0,
    max_completion_tokens=64,
)
for piece in chat.stream("What is the capital of France?"):
    sys.stdout.write(piece.text)
    sys.stdout.flush()
