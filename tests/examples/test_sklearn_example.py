"""`examples/sklearn`: as its user would run it, and as README shows it."""

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from httpx2 import AsyncClient
from serving import serving

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "sklearn"
VIRGINICA = [6.3, 3.3, 6.0, 2.5]
SETOSA = [5.1, 3.5, 1.4, 0.2]


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed; the example needs it")
    folder = tmp_path_factory.mktemp("app")
    shutil.copy(EXAMPLE / "model.py", folder)
    async with serving(folder, (EXAMPLE / "models.toml").read_text("utf-8")) as client:
        yield client


async def test_it_knows_an_iris_by_its_lengths(client: AsyncClient) -> None:
    answer = await client.post("/predict/iris", json=VIRGINICA)
    assert (answer.status_code, answer.json()) == (200, "virginica")
    answer = await client.post("/predict/iris", json=VIRGINICA[:3])
    assert answer.json()["errors"][0]["loc"] == ["body", 3]


async def test_many_get_their_answers_in_order(client: AsyncClient) -> None:
    body = {"items": [SETOSA, VIRGINICA[:2], VIRGINICA]}
    first, wrong, last = (await client.post("/predict-batch/iris", json=body)).json()["results"]
    assert (first["answer"], last["answer"]) == ("setosa", "virginica")
    assert wrong["error"]["code"] == "invalid_request"


def test_readme_shows_the_file_and_the_entry_of_the_example() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    section = readme[readme.index("## Serve your own model") :]
    code, entry = re.findall(r"```(?:python|toml)\n(.*?)```", section, re.DOTALL)[:2]
    assert lines(code) == lines((EXAMPLE / "model.py").read_text("utf-8"))
    assert lines(entry) == lines((EXAMPLE / "models.toml").read_text("utf-8"))


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]
