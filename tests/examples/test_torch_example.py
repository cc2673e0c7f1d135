"""`examples/torch`: as its user would run it."""

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from httpx2 import AsyncClient
from serving import serving

EXAMPLE = Path(__file__).parents[2] / "examples" / "torch"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    folder = tmp_path_factory.mktemp("app")
    shutil.copy(EXAMPLE / "model.py", folder)
    async with serving(folder, (EXAMPLE / "models.toml").read_text("utf-8")) as client:
        yield client


async def test_it_says_what_a_flat_costs_and_refuses_a_district_that_it_lacks(
    client: AsyncClient,
) -> None:
    flats = [
        {"square_metres": 80, "rooms": 3, "district": "centre"},
        {"square_metres": 80, "rooms": 3, "district": "north", "has_lift": True},
        {"square_metres": 80, "rooms": 3, "district": "west"},
    ]
    answer = await client.post("/predict-batch/prices", json={"items": flats})
    centre, north, unknown = answer.json()["results"]
    assert centre["answer"]["euros"] > north["answer"]["euros"] > 0
    assert unknown["error"]["errors"][0]["loc"] == ["body", "items", 2, "district"]


async def test_its_readme_shows_what_it_answers(client: AsyncClient) -> None:
    readme = (EXAMPLE / "README.md").read_text("utf-8")
    shown = re.findall(r"-d '(.*)'\n(.*)\n", readme)
    for body, expected in shown:
        headers = {"Content-Type": "application/json"}
        answer = await client.post("/predict/prices", content=body, headers=headers)
        if answer.status_code == 200:
            assert set(answer.json()) == {"euros"}
            price = int(re.sub(r"\D", "", expected))
            assert answer.json()["euros"] == pytest.approx(price, rel=0.05)
        else:
            assert expected.startswith('{"type":"urn:ml-api:problem:invalid_request"')
    assert len(shown) == 2
