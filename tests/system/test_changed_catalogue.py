"""A catalogue that changes under a running service: SIGHUP, and the command."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from commands import run
from process import Service, service

pytestmark = pytest.mark.system

MODELS = """
[[models]]
name = "mood"
engine = "fake"
required = true
[[models.versions]]
version = "1"
"""
SECOND = '[[models.versions]]\nversion = "2"\nweight = 1\n'
PATIENCE_S = 30.0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Service]:
    with service(tmp_path, MODELS, auth="off") as running:
        running.wait_ready()
        yield running


def versions(served: Service) -> dict[str, Any]:
    (model,) = httpx2.get(f"{served.url}/models", timeout=10).json()["models"]
    return {one["version"]: one["state"] for one in model["versions"]}


def answer_of(served: Service) -> int:
    return httpx2.post(f"{served.url}/predict", json={"text": "a"}, timeout=10).status_code


def test_sighup_reads_the_catalogue_anew_and_sigterm_still_ends(
    tmp_path: Path, served: Service
) -> None:
    file = tmp_path / "models.toml"
    file.write_text(MODELS + SECOND)
    served.process.send_signal(signal.SIGHUP)
    until_s = time.monotonic() + PATIENCE_S
    while versions(served) != {"1": "unloaded", "2": "ready"}:
        assert time.monotonic() < until_s, served.log
        assert answer_of(served) == 200
    file.write_text(MODELS.replace("required = true", "required = false"))
    served.process.send_signal(signal.SIGHUP)
    served.wait_logged("catalogue_refused")
    assert "model 'mood': required" in served.log
    assert versions(served) == {"1": "unloaded", "2": "ready"}
    assert answer_of(served) == 200
    assert served.stop() == 0


def test_the_command_puts_a_checked_catalogue_in_place(tmp_path: Path, served: Service) -> None:
    file, new = tmp_path / "models.toml", tmp_path / "new.toml"
    new.write_text(MODELS + SECOND)

    def apply() -> Any:
        return run(
            tmp_path, "models", "apply", "new.toml", "--url", served.url, models_file=str(file)
        )

    applied = apply()
    assert (applied.returncode, applied.stdout) == (0, "mood: changed\n"), applied.stderr
    assert versions(served)["2"] == "ready"
    assert file.read_text() == MODELS + SECOND
    assert (tmp_path / "models.toml.before").read_text() == MODELS
    new.write_text(MODELS + SECOND + "fake = { fail_load = true }\n")
    failed = apply()
    assert failed.returncode == 1
    assert failed.stdout.startswith("mood: failed: ")
    assert answer_of(served) == 200
    new.write_text(MODELS.replace("mood", "x"))
    refused = apply()
    assert refused.returncode == 1
    assert "it is required, and is gone" in refused.stderr
    assert "fail_load" in file.read_text()
