"""Settings: read from the environment, refused readably, documented completely."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.cores import core_count
from app.errors import SettingsError
from app.runtime.checks import check_settings
from app.settings import Settings, load_settings

ROOT = Path(__file__).parent.parent


def test_defaults_suit_make_serve() -> None:
    settings = Settings(_env_file=None)
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


def test_addresses_and_limits_that_cant_be_read_are_refused_all_at_once() -> None:
    names = ("database_url", "redis_url", "default_limit")
    given: dict[str, Any] = dict.fromkeys(names, "hunter2://h")
    with pytest.raises(SettingsError) as refused:
        check_settings(Settings(_env_file=None, **given))
    assert all(f"{name.upper()}: " in str(refused.value) for name in names)
    assert "hunter2" not in str(refused.value)
    fine: dict[str, Any] = {"redis_url": "unix:///run/v.sock", "default_limit": "1/second"}
    check_settings(Settings(_env_file=None, **fine))


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

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in create_app(Settings(_env_file=None)).openapi()["paths"]:
        assert path in readme, path


def test_links_between_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if not target.startswith(("http", "mailto")):
                assert (document.parent / target).exists(), f"{document.name}: {target}"
