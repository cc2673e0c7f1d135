"""The article's way to stream chat: `generate` in a thread, and a TextIteratorStreamer.

BENCH_THREADS is what torch may use for one call; each stream has a call of its own.
"""

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from threading import Thread
from typing import Any

import torch
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer

chat: dict[str, Any] = {}


class ChatRequest(BaseModel):
    """A conversation to go on with; answers are greedy."""

    messages: list[dict[str, str]]
    max_tokens: int = 256


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Load the model once."""
    torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
    chat["tokenizer"] = AutoTokenizer.from_pretrained(os.environ["BENCH_MODEL"])
    chat["model"] = AutoModelForCausalLM.from_pretrained(os.environ["BENCH_MODEL"]).eval()
    yield
    chat.clear()


app = FastAPI(lifespan=lifespan)


def stream(asked: ChatRequest) -> Iterator[str]:
    """Yield lines while a thread generates."""
    tokenizer = chat["tokenizer"]
    inputs = tokenizer.apply_chat_template(
        asked.messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    settings = {"max_new_tokens": asked.max_tokens, "do_sample": False}
    thread = Thread(
        target=chat["model"].generate, kwargs={**inputs, **settings, "streamer": streamer}
    )
    thread.start()
    for token in streamer:
        yield json.dumps({"token": token}) + "\n"
    thread.join()
    yield json.dumps({"token": "", "done": True}) + "\n"


@app.post("/chat/stream")
async def chat_stream(request: ChatRequest) -> StreamingResponse:
    """Stream an answer."""
    return StreamingResponse(stream(request), media_type="application/x-ndjson")
