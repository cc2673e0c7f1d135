"""Workers as processes of their own, and what is asked of them through their service."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from process import APP, STOP_TIMEOUT_S, Service, environment

EMBEDDER = """
[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
default = true
required = true
fake = { delay_ms = 20 }
"""
TIMEOUT_S = 60.0
ADDED_AT_ONCE = 1_000
FINAL = {"succeeded", "failed", "cancelled"}


def until(claim: Callable[[], bool], said: str) -> None:
    """Wait for another process, which nothing tells of."""
    end = time.monotonic() + TIMEOUT_S
    while not claim():
        assert time.monotonic() < end, said
        time.sleep(0.05)


def below(pid: int) -> dict[int, str]:
    """Return the living processes below one, with their command lines."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            args = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z" and int(parent) == pid:
            found |= {int(folder.name): args, **below(int(folder.name))}
    return found


def submit(made: Service, count: int, text: str = "text number") -> str:
    documents = [{"id": f"d{i}", "text": f"{text} {i}"} for i in range(count)]
    for start in range(0, count, ADDED_AT_ONCE):
        some = {"documents": documents[start : start + ADDED_AT_ONCE]}
        assert httpx2.post(f"{made.url}/documents", json=some, timeout=30).status_code == 201
    wanted = {"doc_ids": [document["id"] for document in documents]}
    answer = httpx2.post(f"{made.url}/embed-batch", json=wanted, timeout=30)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/jobs/{answer.json()['job_id']}"
    return str(answer.json()["job_id"])


def job(made: Service, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{made.url}/jobs/{job_id}").json()
    return found


def finish(made: Service, job_id: str) -> dict[str, Any]:
    until(lambda: job(made, job_id)["status"] in FINAL, made.log)
    return job(made, job_id)


def has_worker(made: Service) -> bool:
    return sum("app worker" in args for args in below(made.process.pid).values()) >= 2


@contextmanager
def worker(folder: Path, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [APP, "worker"], cwd=folder, env=environment(folder, **settings), stderr=log
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(STOP_TIMEOUT_S)
