"""`app doctor` tries to load each model: it says what a start would, in bounded time."""

import time
from pathlib import Path

import pytest
from process import run
from test_doctor import doctor
from test_openvino import tiny

from app.doctor import trial
from app.doctor.trial import try_model
from app.models.catalog import ModelSpec

FAKE = '[[models]]\nname = "m"\nengine = "fake"\n'
SAFE = "model.safetensors"


def entry(folder: Path) -> str:
    return f'[[models]]\nname = "m"\nsource = "file:{folder}"\n'


def start(folder: Path, models: str) -> str:
    """Start the service on models; return the line that it ends with."""
    (folder / "models.toml").write_text(models)
    models_file = folder / "models.toml"
    ended = run(folder, "serve", "--port", "0", models_file=models_file, log_level="error")
    assert ended.returncode == 1
    return ended.stderr.splitlines()[-1]


def test_a_model_that_loads_is_told_with_its_engine(tmp_path: Path) -> None:
    status, findings = doctor(tmp_path, entry(tiny(tmp_path / "model")))
    assert status == 0
    (finding,) = findings["model m"]
    assert "torch, loaded in" in finding["said"]
    assert "the first start will convert it" in finding["said"]
    assert not (tmp_path / "data").exists(), "nothing was written"


def test_a_model_that_can_t_be_loaded_fails_in_the_words_of_the_start(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "model")
    (folder / SAFE).write_bytes((folder / SAFE).read_bytes()[:1000])
    status, findings = doctor(tmp_path, entry(folder))
    assert status == 1
    message = findings["model m"][0]["said"]
    assert start(tmp_path, entry(folder)) == f"ml-api: error: model 'm' (required): {message}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("fake = { fail_load = true }", "the fake engine was told not to load"),
        ('fake = { fail_on = "warm" }', "the first call failed: FakeFailureError: "),
    ],
)
def test_the_first_call_is_tried_too(tmp_path: Path, fields: str, message: str) -> None:
    status, findings = doctor(tmp_path, FAKE + fields)
    assert (status, findings["model m"][0]["said"]) == (1, message.strip())


def test_no_models_fail(tmp_path: Path) -> None:
    status, findings = doctor(tmp_path, "")
    assert (status, findings["models"][0]["level"]) == (1, "fail")


def test_a_load_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models.toml").write_text(FAKE + "fake = { load_delay_ms = 600000 }")
    monkeypatch.setenv("MODELS_FILE", str(tmp_path / "models.toml"))
    began_s = time.monotonic()
    finding = try_model(ModelSpec(name="m", engine="fake"), timeout_s=0.5)
    assert (finding.level, finding.said) == ("warn", "not loaded within 0.5 s")
    assert time.monotonic() - began_s < 30


def test_a_process_that_crashes_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "__name__", "os import abort; abort()  #")
    finding = try_model(ModelSpec(name="m", engine="fake"), timeout_s=60)
    assert (finding.level, finding.said) == ("fail", "the process that loaded it ended with -6")
