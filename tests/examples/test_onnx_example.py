"""`examples/onnx`: trained, exported and served as its user would."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from httpx2 import AsyncClient
from serving import serving

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the example's script has run."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copy(EXAMPLE / "train.py", folder)
    subprocess.run([sys.executable, folder / "train.py"], check=True, timeout=120)
    return folder


@pytest.fixture
async def client(trained: Path) -> AsyncIterator[AsyncClient]:
    models = (EXAMPLE / "models.toml").read_text("utf-8")
    async with serving(trained, models, features="none") as client:
        yield client


async def test_it_answers_as_its_readme_shows(client: AsyncClient) -> None:
    readme = (EXAMPLE / "README.md").read_text("utf-8")
    (body, expected), (wrong, refusal) = re.findall(r"-d '(.*)'\n(.*)\n", readme)
    headers = {"Content-Type": "application/json"}
    answer = await client.post("/predict/churn", content=body, headers=headers)
    shown = json.loads(expected)
    assert answer.json()["output_label"] == shown["output_label"]
    assert answer.json()["output_probability"] == pytest.approx(
        shown["output_probability"], rel=0.05
    )
    answer = await client.post("/predict/churn", content=wrong, headers=headers)
    assert answer.status_code == 422
    assert refusal.startswith('{"type":"urn:ml-api:problem:invalid_request"')
    assert [error["loc"] for error in answer.json()["errors"]] == [
        ["body", "age"],
        ["body", "calls"],
    ]


async def test_many_are_answered_as_one_by_one(client: AsyncClient) -> None:
    items = [
        {"plan": plan, "age": age, "calls": calls}
        for plan in ("month", "year", "never heard of")
        for age in (20, 70)
        for calls in (0, 9)
    ]
    answer = await client.post("/predict-batch/churn", json={"items": items})
    for item, result in zip(items, answer.json()["results"], strict=True):
        alone = (await client.post("/predict/churn", json=item)).json()
        assert result["answer"]["output_label"] == alone["output_label"]
