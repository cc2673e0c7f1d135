"""docs/howto/add-a-task.md: its code, taken from the page and asked by a client."""

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import make_settings, running

import app.tasks
from app.main import TASKS, create_app
from app.runtime.composition import Installed, find_installed

GUIDE = Path(__file__).parent.parent / "docs" / "howto" / "add-a-task.md"
PACKAGE = "app.tasks.language_detection"
FILE = re.compile(
    r"^`app/tasks/(language_detection/\w+\.py)`[^\n`]*(?:\n[^\n`]+)*\n\n```python\n(.*?)^```",
    re.MULTILINE | re.DOTALL,
)
LINE = re.compile(r"^TASKS = \((.*?)^\)", re.MULTILINE | re.DOTALL)
CATALOGUE = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
WAIT_S = 10
POLL_S = 0.02  # rows are written in batches


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    """What is installed when the guide's folder lies beside those of app/tasks/."""
    for name, code in FILE.findall(GUIDE.read_text("utf-8")):
        file = tmp_path / "tasks" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code, encoding="utf-8")
    monkeypatch.setattr(app.tasks, "__path__", [*app.tasks.__path__, str(tmp_path / "tasks")])
    yield find_installed(dict.fromkeys([*TASKS, "language_detection"]), ("prediction_log",))
    for module in [name for name in sys.modules if name.startswith(PACKAGE)]:
        del sys.modules[module]


async def test_the_task_has_route_openapi_log_row_metrics_and_entry(
    tmp_path: Path, parts: Installed
) -> None:
    (catalogue,) = CATALOGUE.findall(GUIDE.read_text("utf-8"))
    made = create_app(make_settings(tmp_path, catalogue), parts=parts)
    async with running(made) as client:
        answer = await client.post("/language", json={"text": "Guten Morgen."})
        assert answer.status_code == 200, answer.text
        assert answer.json()["language"] in {"de", "en", "fr"}
        unknown = await client.post("/language", json={"text": "x", "model_name": "other"})
        assert unknown.json()["code"] == "model_not_found"
        document = (await client.get("/openapi.json")).json()
        assert {"200", "422", "503", "504"} <= set(
            document["paths"]["/language"]["post"]["responses"]
        )
        rows: list[dict[str, Any]] = []
        async with asyncio.timeout(WAIT_S):
            while len(rows) < 2:
                await asyncio.sleep(POLL_S)
                rows = (await client.get("/predictions")).json()["predictions"]
        assert {row["task"] for row in rows} == {"language-detection"}
        assert {row["error"] for row in rows} == {None, "model_not_found"}
        assert 'mlapi_model_ready{model="languages"} 1.0' in (await client.get("/metrics")).text
        (entry,) = (await client.get("/models")).json()["models"]
        assert (entry["task"], entry["state"]) == ("language-detection", "ready")


def test_the_guide_lists_the_tasks_of_app_and_its_own_behind_them() -> None:
    (block,) = LINE.findall(GUIDE.read_text("utf-8"))
    *listed, added = re.findall(r'"(\w+)"', block)
    assert added == "language_detection"
    assert set(listed) <= set(TASKS)  # a project has tasks of its own besides
