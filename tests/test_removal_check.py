"""What `make removal-check` takes out of a copy."""

from pathlib import Path

import pytest

from app.main import FEATURES, TASKS
from scripts.removal_check import imports, parts, remove, remove_tests

GONE = {"app.features.jobs", "jobs"}


def test_what_needs_a_part_goes_with_it() -> None:
    taken = {part.name: {plugin.name for plugin in part.with_it} for part in parts()}
    assert taken["embedding"] == {"embedding", "documents", "jobs", "openai_batches"}
    assert taken["documents"] == {"documents", "jobs", "openai_batches"}
    assert taken["chat"] == {"chat"}
    assert taken.keys() == {*FEATURES, *TASKS} - {"classification"}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import app.features.jobs.supervisor", True),
        ("from app.features import access, jobs", True),
        ("def test() -> None:\n    from app.features.jobs import routes", True),
        ("from jobs import NEW", True),
        ("from app.features.jobs_of_others import routes", False),
        ("from . import jobs_of_others", False),
    ],
)
def test_who_imports_what_is_gone_is_found(
    tmp_path: Path,
    source: str,
    found: bool,  # noqa: FBT001  # a column of the table
) -> None:
    file = tmp_path / "file.py"
    file.write_text(source, encoding="utf-8")
    assert imports(file, GONE) is found


def test_folder_line_and_tests_go_and_so_do_those_who_import_them(tmp_path: Path) -> None:
    files = {
        "app/main.py": 'TASKS = (\n    "chat",\n    "other",\n)\n',
        "app/tasks/chat/task.py": "",
        "tests/tasks/chat/test_chat.py": "CHAT = 1\n",
        "tests/helper.py": "from test_chat import CHAT\n",
        "tests/test_two.py": "import helper\n",
        "tests/test_core.py": "import json\n",
        "benchmarks/talk.py": "from app.tasks.chat import task\n",
        "scripts/show.py": "import benchmarks.talk\n",
    }
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source, encoding="utf-8")
    (chat,) = [part for part in parts() if part.name == "chat"]
    remove(tmp_path, chat)
    assert (tmp_path / "app/main.py").read_text(encoding="utf-8") == 'TASKS = (\n    "other",\n)\n'
    gone = ["benchmarks/talk.py", "scripts/show.py", "tests/helper.py", "tests/test_two.py"]
    assert remove_tests(tmp_path, chat) == gone
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.py")}
    assert left == {"app/main.py", "tests/test_core.py"}
