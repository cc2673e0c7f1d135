"""Settings: read from the environment, refused readably, documented completely."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from serving import AllSettings

from app.core.cores import core_count
from app.core.setting_errors import WORDS, setting_error
from app.errors import SettingsError
from app.main import FEATURES, TASKS, installed, load_settings
from app.runtime.composition import check, choose, find_installed

ROOT = Path(__file__).parent.parent


def test_defaults_suit_make_serve() -> None:
    settings = AllSettings(_env_file=None)
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.models_dir == Path("data/models")
    assert 1 <= settings.thread_count <= min(core_count(), 8)
    assert settings.models_file.is_file()


def test_environment_and_env_file_are_read_and_arguments_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("PORT=1000\nLOG_LEVEL=error\nNOT_OURS=1\nHOST=\n", encoding="utf-8")
    monkeypatch.setenv("PORT", "2000")
    monkeypatch.setenv("MODEL_CACHE_DIR", "/cache")
    settings = load_settings(host="::1")
    assert (settings.port, settings.log_level, settings.host) == (2000, "error", "::1")
    assert settings.models_dir == Path("/cache")


def test_a_bad_value_is_refused_by_name_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "hunter2")
    monkeypatch.setenv("LOG_FORMAT", "xml")
    with pytest.raises(SettingsError, match=r"PORT: .*LOG_FORMAT: ") as refused:
        load_settings()
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("ADMIN_KEY", "short", "ADMIN_KEY: must have at least 16 characters"),
        ("WEBHOOK_SECRET", "short", "WEBHOOK_SECRET: must have at least 16 characters"),
        (
            "WEBHOOK_SECRET",
            "whsec_c2hvcnRzaG9ydA==",
            "WEBHOOK_SECRET: must have at least 16 bytes in",
        ),
        ("WEBHOOK_SECRET", "whsec_" + "%" * 32, "WEBHOOK_SECRET: must have at least 16 bytes"),
        ("PORT", "70000", "PORT: must be at most 65535"),
        ("PORT", "1.5", "PORT: must be a whole number"),
        ("PORT", "9" * 5000, "PORT: must be a smaller number"),
        ("QUEUE_TOKENS", "0", "QUEUE_TOKENS: must be more than 0"),
        ("DRAIN_DELAY_S", "-1", "DRAIN_DELAY_S: must be at least 0"),
        ("LOG_INPUTS", "maybe", "LOG_INPUTS: must be true or false"),
        ("DEVICE", "gpu", "DEVICE: must be auto, cpu or cuda"),
        ("PORT", "\udcff", "PORT: must be UTF-8"),
        ("WEBHOOK_ALLOW_HOSTS", "http://h", "WEBHOOK_ALLOW_HOSTS: must be names of hosts, such as"),
    ],
)
def test_a_bad_value_is_refused_in_words(name: str, value: str, line: str) -> None:
    given: dict[str, Any] = {name.lower(): value}
    with pytest.raises(SettingsError) as refused:
        load_settings(_env_file=None, **given)
    assert str(refused.value).startswith(line)


def test_what_is_wrong_with_two_settings_together_names_both() -> None:
    with pytest.raises(SettingsError, match=r"^AUTH=off would let everyone in who reaches HOST"):
        load_settings(_env_file=None, auth="off", host="0.0.0.0")


def check_settings(settings: Any) -> None:
    """Do what a start does with settings before it opens anything."""
    check(choose(installed(), settings), settings)


WRONG = ("", "x", "-1", "1.5", "nan", "9" * 30, "9" * 5000, "[1]", "h/@*", "\udcff")


def test_every_kind_of_error_that_a_setting_can_have_has_words_of_its_own() -> None:
    kinds = set()
    for value in WRONG:
        given: dict[str, Any] = dict.fromkeys(AllSettings.model_fields, value)
        with pytest.raises(ValidationError) as invalid:  # none of these is right for all of them
            AllSettings(_env_file=None, **given)
        kinds |= {error["type"] for error in invalid.value.errors()}
    assert {"too_short", "literal_error", "int_parsing", "bool_parsing"} <= kinds <= set(WORDS)


@pytest.mark.parametrize("type_of", [float, Path, int])
def test_kinds_that_no_setting_has_yet_are_told_without_the_value(type_of: type) -> None:
    class Other(BaseModel):
        secret: type_of  # type: ignore[valid-type]  # as the test says

    with pytest.raises(ValidationError) as invalid:
        Other(secret=["hunter2"])
    assert setting_error(invalid.value.errors()[0]) in {
        "SECRET: can't be used",
        "SECRET: must be a path",
    }


def test_addresses_and_limits_that_cant_be_read_are_refused_all_at_once() -> None:
    names = ("database_url", "redis_url", "default_limit")
    given: dict[str, Any] = dict.fromkeys(names, "hunter2://h")
    with pytest.raises(SettingsError) as refused:
        check_settings(AllSettings(_env_file=None, **given))
    assert all(f"{name.upper()}: " in str(refused.value) for name in names)
    assert "hunter2" not in str(refused.value)
    fine: dict[str, Any] = {"redis_url": "unix:///run/v.sock", "default_limit": "1/second"}
    check_settings(AllSettings(_env_file=None, **fine))


def test_home_is_understood_and_a_file_that_is_not_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", "~/x")
    assert load_settings().data_dir == Path.home() / "x"
    Path(".env").write_bytes(b"PORT=\xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load_settings()


def test_documents_say_what_the_code_does() -> None:
    """docs/settings.md, errors.md, metrics.md and .env.example are made from the code."""
    checked = subprocess.run(
        [sys.executable, "scripts/document.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_route_is_in_the_readme() -> None:
    from app.main import create_app

    # Of the template: what a project adds to it needs no line there.
    tasks = ("classification", "embedding", "chat")
    features = ("access", "prediction_log", "documents", "jobs", "openai", "page")
    parts = find_installed(
        [name for name in TASKS if name in tasks], [name for name in FEATURES if name in features]
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in create_app(AllSettings(_env_file=None), parts=parts).openapi()["paths"]:
        assert path in readme, path
