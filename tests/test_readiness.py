"""Ready means that it serves: which models `/ready` waits for, and what it says meanwhile."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from httpx2 import AsyncClient
from process import run
from serving import FatalError, make_app, running
from test_schemas import check_problem

from app.engines.base import Step
from app.runtime.runtime import Runtime
from app.runtime.watching import watch_loading

pytestmark = pytest.mark.core

# As README's "Serve your own model" has it: nothing is said of `required`.
THREE_LINES = '[[models]]\nname = "mine"\nsource = "file:nowhere"\n'
FAKE = '[[models]]\nname = "mine"\nengine = "fake"\n'
LATE = FAKE + "fake = { load_delay_ms = 300 }\n"
FAILS = "required = false\nfake = { fail_load = true }\n"
SPARE = FAKE.replace("mine", "spare") + FAILS
WHY = "the fake engine was told not to load"


async def model(client: AsyncClient, name: str) -> dict[str, Any]:
    models = (await client.get("/models")).json()["models"]
    return next(model for model in models if model["name"] == name)


async def test_three_lines_are_ready_only_once_their_model_serves(tmp_path: Path) -> None:
    app = make_app(tmp_path, LATE)
    async with running(app, wait=False) as client:
        early = await client.get("/ready")
        refused = await client.post("/predict", json={"text": "x"})
        await app.state.runtime.loaded.wait()
        await app.state.runtime.stored.wait()
        late = await client.get("/ready")
        served = await client.post("/predict", json={"text": "x"})
    assert (early.status_code, refused.status_code) == (503, 503)
    assert (late.status_code, served.status_code) == (200, 200)
    assert late.json()["models"] == [{"name": "mine", "state": "ready", "required": True}]


async def test_a_default_model_that_cant_be_loaded_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match=r"^model 'mine' \(required\): .*nowhere"):
        async with running(make_app(tmp_path, THREE_LINES)):
            pass


def test_three_lines_with_a_wrong_path_end_the_process_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(THREE_LINES)
    models_file = tmp_path / "models.toml"
    ended = run(tmp_path, "serve", "--port", "0", models_file=models_file, log_level="error")
    assert ended.returncode == 1
    line = ended.stderr.splitlines()[-1]
    assert line.startswith("ml-api: error: model 'mine' (required): ")
    assert "nowhere" in line


@pytest.mark.parametrize(
    ("models", "detail"),
    [
        ("", "The catalogue has no models."),
        (
            FAKE + FAILS + SPARE,
            "No model serves: mine, spare could not be loaded; GET /models says why.",
        ),
    ],
    ids=["empty", "all failed"],
)
async def test_a_catalogue_of_which_nothing_serves_is_never_ready_and_the_process_stays(
    tmp_path: Path, models: str, detail: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(make_app(tmp_path, models)) as client:
        problem = check_problem(await client.get("/ready"), 503, "not_ready")
        assert (await client.get("/health")).status_code == 200
    assert problem["detail"] == detail
    (record,) = [r for r in caplog.records if r.getMessage() == "nothing_serves"]
    assert vars(record)["reason"] == detail


async def test_a_model_that_may_fail_doesn_t_hold_back_those_that_serve(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, FAKE + SPARE)) as client:
        answer = await client.get("/ready")
    assert answer.status_code == 200
    assert answer.json()["degraded"] == ["model:spare"]


async def test_models_gives_the_reason_in_the_words_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        async with running(make_app(tmp_path, FAKE + SPARE)) as client:
            spare = await model(client, "spare")
    (record,) = [r for r in caplog.records if r.getMessage() == "model_failed"]
    assert (spare["reason"], spare["detail"]) == ("engine_failed", WHY)
    assert vars(record)["reason"] == WHY


async def test_ready_says_which_step_a_model_is_at_and_for_how_long(tmp_path: Path) -> None:
    app = make_app(tmp_path, LATE + FAKE.replace("mine", "other"))
    async with running(app, wait=False) as client:
        runtime: Runtime = app.state.runtime
        while not (entry := runtime.registry.entries[0]).began_s:
            await asyncio.sleep(0)
        runtime.steps.recorder("mine")(Step(number=3, of=4, name="converting"))
        entry.began_s = time.monotonic() - 12
        while runtime.registry.entries[1].is_loading:
            await asyncio.sleep(0)
        problem = check_problem(await client.get("/ready"), 503, "not_ready")
        await runtime.loaded.wait()
        await runtime.stored.wait()
        ready = await client.get("/ready")
    assert problem["detail"] == (
        "Waiting for mine (step 3 of 4: converting, 12 s so far); 1 of 2 models serve."
    )
    progress = problem["models"][0]["progress"]
    assert (progress["step"], progress["number"], progress["of"]) == ("converting", 3, 4)
    assert progress["seconds"] == pytest.approx(12, abs=1)
    assert all("progress" not in model for model in ready.json()["models"])


async def test_the_log_says_what_is_waited_for_while_models_load(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(tmp_path, LATE)
    with caplog.at_level("INFO"):
        async with running(app, wait=False):
            await watch_loading(app.state.runtime, every_s=0.05)
    waiting_lists = [
        vars(r)["waiting"] for r in caplog.records if r.getMessage() == "models_loading"
    ]
    assert waiting_lists
    assert all(waiting == ["mine (loading, 0 s so far)"] for waiting in waiting_lists)
