"""Batches with real processes: service and worker are killed, and each line is answered once."""

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest
from process import Service, service
from workers import below, has_worker, until

pytestmark = pytest.mark.system

MODELS = """
[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
default = true
required = true
fake = { delay_ms = 100 }
"""
LINES = 60
ENDED = {"completed", "failed", "expired", "cancelled"}


def begin(ai: openai.OpenAI) -> str:
    lines = [
        {
            "custom_id": f"line-{n}",
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"input": f"text {n}"} if n % 10 else {"input": 5},
        }
        for n in range(LINES)
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = ai.files.create(file=("in.jsonl", content), purpose="batch")
    created = ai.batches.create(
        input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h"
    )
    return created.id


def client(made: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{made.url}/v1", api_key="none", max_retries=0, timeout=10)


def answered(ai: openai.OpenAI, batch_id: str) -> int:
    counts = ai.batches.retrieve(batch_id).request_counts
    return counts.completed + counts.failed if counts else 0


def ids_of(ai: openai.OpenAI, file_id: str | None) -> list[str]:
    assert file_id is not None
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in ai.files.content(file_id).text.splitlines()
    ]
    assert all(line["response"]["body"] for line in lines)
    return [line["custom_id"] for line in lines]


def test_each_line_is_answered_once_although_service_and_worker_are_killed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        settings = {"jobs": "on", "job_lease_s": 2, "batch_lines_at_once": 1}
        made = stack.enter_context(service(tmp_path, MODELS, **settings))
        made.wait_ready()
        until(lambda: has_worker(made), made.log)
        (worker, *_) = [p for p, args in below(made.process.pid).items() if "app worker" in args]
        batch_id = begin(client(made))
        os.kill(worker, signal.SIGKILL)
        until(lambda: answered(client(made), batch_id) > 0, made.log)
        assert answered(client(made), batch_id) < LINES
        made.stop(signal.SIGKILL)
        again = stack.enter_context(service(tmp_path, MODELS, **settings))
        again.wait_ready()
        ai = client(again)
        until(lambda: ai.batches.retrieve(batch_id).status in ENDED, again.log)
        ended = ai.batches.retrieve(batch_id)
        assert ended.status == "completed"
        good, bad = ids_of(ai, ended.output_file_id), ids_of(ai, ended.error_file_id)
        assert sorted(good + bad) == sorted(f"line-{n}" for n in range(LINES))
        assert bad == [f"line-{n}" for n in range(0, LINES, 10)]
