"""Responses of remote models: their servers are asked for chat completions."""

import json
from pathlib import Path

import pytest
from openai_server import OpenAiServer
from serving import serving
from test_remote import KEY_VARIABLE, models
from test_remote_tools import LOOKED, TWO

LOOK = {"name": "look", "parameters": {"type": "object"}, "strict": False}
WAIT = {"name": "wait", "description": "é"}
SCHEMA = {"name": "n", "schema": {"type": "object"}, "strict": True}


async def test_items_become_messages_and_calls_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sk-key")
    call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": '{"b" : 1}'}
    said = {"role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]}
    body = {
        "model": "remote",
        "instructions": "Be brief.",
        "input": [
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            said,
            call,
            {**call, "call_id": "d"},
            {"type": "function_call_output", "call_id": "c", "output": "Sunny"},
        ],
        "tools": [{"type": "function", **tool} for tool in (LOOK, WAIT)],
        "tool_choice": {"type": "function", "name": "look"},
        "text": {"format": {"type": "json_schema", **SCHEMA}},
        "max_output_tokens": 9,
    }
    with OpenAiServer(TWO) as server:
        async with serving(tmp_path, models(server)) as client:
            answer = await client.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    function = {"name": "look", "arguments": '{"b" : 1}'}
    calls = [{"id": name, "type": "function", "function": function} for name in "cd"]
    sent = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "Let me see.", "tool_calls": calls},
            {"role": "tool", "content": "Sunny", "tool_call_id": "c"},
        ],
        "tools": [{"type": "function", "function": tool} for tool in (LOOK, WAIT)],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "response_format": {"type": "json_schema", "json_schema": SCHEMA},
    }
    (request,) = server.requests
    assert json.dumps({name: request.body[name] for name in sent}) == json.dumps(sent)
    made = [(item["call_id"], item["name"], item["arguments"]) for item in answer.json()["output"]]
    assert made == [("call_x", "look", LOOKED), ("call_y", "wait", "{}")]
