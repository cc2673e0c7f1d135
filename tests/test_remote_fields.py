"""Fields of remote models: their server gets what this service doesn't know, if it may."""

from pathlib import Path
from typing import Any

import pytest
from test_remote import KEY_VARIABLE
from test_remote_tools import ask

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}
TEXT = {"type": "text", "text": "What is it?", "cache_control": {"type": "ephemeral"}}
SENT: dict[str, Any] = {
    "messages": [
        {"role": "assistant", "content": "Hm.", "reasoning_content": "thoughts"},
        {"role": "user", "content": [TEXT, IMAGE], "weight": 1},
    ],
    "user": "ann",
    "metadata": {"a": "b"},
    "store": True,
    "prompt_cache_options": {"x": 1},
    "unheard_of": [1, {"y": None}],
    "frequency_penalty": 0.5,
    "logit_bias": {"5": -100},
    "top_k": 3,
    "repetition_penalty": 1.1,
    "ignore_eos": True,
    "reasoning_effort": "low",
    "chat_template_kwargs": {"enable_thinking": False},
}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sk-key")


async def test_the_server_gets_fields_that_are_not_known_here(tmp_path: Path) -> None:
    answer, server = await ask(tmp_path, tools=None, **SENT)
    assert answer.status_code == 200, answer.text
    (request,) = server.requests
    assert {name: request.body[name] for name in SENT} == SENT
    assert request.body.keys() - SENT.keys() == {"model", "stream", "stream_options"}


async def test_an_entry_may_keep_them_from_its_server(tmp_path: Path) -> None:
    asked = {"messages": [{"role": "user", "content": "Hi"}], "tools": None, "user": "ann"}
    more = "pass_fields = false"
    _, server = await ask(tmp_path, more=more, **asked)
    (request,) = server.requests
    assert "user" not in request.body
    answer, server = await ask(tmp_path, more=more, **asked, unheard_of=1)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "unheard_of"
    assert not server.requests
