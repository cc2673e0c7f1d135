"""`app serve --reload-models`: a class is loaded anew when its file changes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from httpx2 import AsyncClient
from serving import FAKE, make_app, running

from app.runtime.reloading import _stamps

LATE = 30.0
MODEL = """
class Model:
    def predict_one(self, item: int) -> int:
        return item + {}
"""
ENTRY = """
[[models]]
name = "mine"
engine = "python"
source = "file:model.py:Model"
isolation = "{}"
"""


async def until_answered(client: AsyncClient, answer: int) -> None:
    async with asyncio.timeout(LATE):
        while (await client.post("/predict/mine", json=1)).json() != answer:
            await asyncio.sleep(0.02)


async def until_logged(caplog: pytest.LogCaptureFixture, event: str) -> Any:
    async with asyncio.timeout(LATE):
        while not (records := [r for r in caplog.records if r.msg == event]):
            await asyncio.sleep(0.02)
    return records[-1]


@pytest.mark.parametrize("isolation", ["thread", "process"])
async def test_a_changed_class_takes_the_place_and_a_broken_one_doesnt(
    tmp_path: Path, isolation: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "model.py"
    file.write_text(MODEL.format(1), encoding="utf-8")
    app = make_app(tmp_path, FAKE + ENTRY.format(isolation), reload_models=True)
    async with running(app) as client:
        await until_answered(client, 2)
        file.write_text(MODEL.format(10), encoding="utf-8")
        await until_answered(client, 11)
        file.write_text("import nowhere_at_all\n", encoding="utf-8")
        failed = await until_logged(caplog, "model_reload_failed")
        assert "ModuleNotFoundError" in failed.reason
        assert "nowhere_at_all" in caplog.text  # its traceback
        assert (await client.post("/predict/mine", json=1)).json() == 11
        file.write_text(MODEL.format(100), encoding="utf-8")
        await until_answered(client, 101)
        (entry,) = (e for e in app.state.runtime.registry.entries if e.spec.name == "mine")
        assert entry.leases == 0
        assert (await client.get("/ready")).json()["degraded"] == []


async def test_without_the_setting_nothing_is_watched(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL.format(1), encoding="utf-8")
    app = make_app(tmp_path, FAKE + ENTRY.format("thread"))
    async with running(app):
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "reload_models"]


def test_a_file_that_is_away_is_a_change_of_its_own(tmp_path: Path) -> None:
    assert _stamps([tmp_path / "away.py"]) == {tmp_path / "away.py": None}
