"""`app call`, against a running service."""

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import commands
import pytest
from process import Service, service
from test_doctor import doctor

from app.console.client import EXIT_INPUT, EXIT_NOT_FOUND

MODEL = """
class Half:
    def predict(self, items: list[int]) -> list[float]:
        return [item / 2 for item in items]
"""
ENTRY = '[[models]]\nname = "half"\nengine = "python"\nsource = "file:half.py:Half"\n'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "half.py").write_text(MODEL, encoding="utf-8")
    with service(folder, ENTRY, auth="off", features="none") as running:
        running.wait_ready()
        yield running


def app(served: Service, *arguments: str, stdin: str = "") -> CompletedProcess[str]:
    return commands.run(served.log_file.parent, *arguments, stdin=stdin, app_url=served.url)


def test_call_prints_the_answer(served: Service) -> None:
    assert app(served, "call", "half", "3").stdout == "1.5\n"
    assert json.loads(app(served, "call", "half", "3", "--json").stdout) == {"answer": 1.5}


def test_call_answers_each_line_and_says_what_is_wrong(served: Service) -> None:
    done = app(served, "call", "half", "-", stdin='1\n\n"a"\nnone\nNaN\n5\n')
    assert done.returncode == EXIT_INPUT
    first, wrong, *no_json, last = done.stdout.splitlines()
    assert (first, last) == ("0.5", "2.5")
    assert wrong == "error\tinvalid_request\t: Input should be a valid integer"
    assert no_json == ["error\tmalformed_json"] * 2


def test_call_of_a_name_that_is_none_ends_with_its_status(served: Service) -> None:
    assert app(served, "call", "none", "1").returncode == EXIT_NOT_FOUND


def test_models_list_has_a_class_which_is_no_default(tmp_path: Path) -> None:
    catalogue = tmp_path / "models.toml"
    catalogue.write_text(ENTRY, encoding="utf-8")
    listed = commands.run(tmp_path, "models", "list", "--json", models_file=catalogue)
    row = json.loads(listed.stdout)
    assert (row["name"], row["task"], row["default"]) == ("half", "python", False)


def test_a_class_in_a_file_isnt_baked(tmp_path: Path) -> None:
    catalogue = tmp_path / "models.toml"
    catalogue.write_text(ENTRY, encoding="utf-8")
    done = commands.run(tmp_path, "models", "bake", "baked", models_file=catalogue)
    assert done.returncode == 1
    assert "model 'half': a class in a file can't be baked" in done.stderr


def test_doctor_loads_a_class_and_may_show_its_message(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(MODEL, encoding="utf-8")
    status, findings = doctor(tmp_path, ENTRY)
    assert status == 0
    assert "file:half.py:Half, version " in findings["model half"][0]["said"]
    (tmp_path / "half.py").write_text("raise OSError('no such tape')", encoding="utf-8")
    status, findings = doctor(tmp_path, ENTRY)
    assert status == 1
    said = findings["model half"][0]["said"]
    assert said.startswith("import of half.py raises OSError at line 1")
    assert said.endswith("OSError: no such tape")
