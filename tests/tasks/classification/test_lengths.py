"""Lengths are told: what was cut to the window, and how long a text of each model may be."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx2 import AsyncClient
from serving import serving
from test_schemas import check_problem

pytestmark = pytest.mark.core

MODELS = """
[[models]]
name = "usual"
engine = "fake"
default = true
limits = { max_tokens = 4 }

[[models]]
name = "long"
engine = "fake"
limits = { max_chars = 5000, max_tokens = 4 }

[[models]]
name = "short"
engine = "fake"
limits = { max_chars = 3 }
"""


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("app"), MODELS) as client:
        yield client


async def ask(client: AsyncClient, path: str, **body: Any) -> Any:
    return await client.post(path, json=body)


async def test_every_answer_says_whether_the_text_was_cut(client: AsyncClient) -> None:
    for text, is_cut in (("four", False), ("five5", True)):
        one = (await ask(client, "/predict", text=text)).json()
        named = (await ask(client, "/predict/usual", text=text, top_k=1)).json()
        assert (one["truncated"], named["truncated"]) == (is_cut, is_cut)
        assert "truncated" not in named["scores"][0]
    batch = (await ask(client, "/predict-batch", texts=["four", "", "five5"])).json()
    assert [result.get("truncated") for result in batch["results"]] == [False, None, True]


@pytest.mark.parametrize(
    ("model", "max_chars"), [(None, 2000), ("usual", 2000), ("long", 5000), ("short", 3)]
)
async def test_a_text_may_be_as_long_as_its_own_model_allows(
    client: AsyncClient, model: str | None, max_chars: int
) -> None:
    longest = "x" * max_chars
    named = {} if model is None else {"model_name": model}
    path = "/predict" if model is None else f"/predict/{model}"
    for place, given in (("/predict", named), (path, {})):
        assert (await ask(client, place, text=longest, **given)).status_code == 200
        refused = await ask(client, place, text=longest + "x", **given)
        assert check_problem(refused, 422, "invalid_request")["errors"] == [
            {
                "loc": ["body", "text"],
                "msg": f"String should have at most {max_chars} characters",
                "type": "string_too_long",
            }
        ]
    batch = (await ask(client, "/predict-batch", texts=[longest, longest + "x"], **named)).json()
    assert "label" in batch["results"][0]
    assert batch["results"][1]["error"] == {
        "code": "text_too_long",
        "detail": f"The text has {max_chars + 1} characters; {max_chars} are allowed.",
    }


async def test_an_unknown_model_is_unknown_however_long_the_text(client: AsyncClient) -> None:
    check_problem(await ask(client, "/predict/none", text="x" * 9999), 404, "model_not_found")


async def test_openapi_and_models_tell_the_bounds(client: AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    models = (await client.get("/models")).json()["models"]
    text = document["components"]["schemas"]["PredictRequest"]["properties"]["text"]
    assert (text["minLength"], text["maxLength"]) == (1, 5000)
    assert [model["max_chars"] for model in models] == [2000, 5000, 3]
