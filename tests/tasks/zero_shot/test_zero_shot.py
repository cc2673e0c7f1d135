"""`/zero-shot` and `/zero-shot-batch`: labels of the request."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from httpx2 import AsyncClient
from serving import serving
from test_schemas import check_problem

from app.services.entailment import likelihoods
from app.tasks.zero_shot.likelihood import labelled

pytestmark = pytest.mark.core

MODELS = """
[[models]]
name = "nli"
task = "zero-shot-classification"
engine = "fake"
limits = { max_tokens = 75, max_chars = 60 }
fake = { fail_on = "poison" }
"""
TEXT = "The screen stays black."
LABELS = ["hardware", "billing", "praise"]


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("app"), MODELS) as client:
        yield client


async def ask(client: AsyncClient, path: str = "/zero-shot", **body: Any) -> Any:
    return await client.post(path, json={"text": TEXT, "labels": LABELS, **body})


async def many(client: AsyncClient, texts: list[str], **body: Any) -> Any:
    return await client.post("/zero-shot-batch", json={"texts": texts, "labels": LABELS, **body})


async def test_labels_come_back_best_first_and_sum_up_to_1(client: AsyncClient) -> None:
    answer = (await ask(client)).json()
    scores = {one["label"]: one["score"] for one in answer["scores"]}
    assert set(scores) == set(LABELS)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert sum(scores.values()) == pytest.approx(1)
    assert (answer["label"], answer["score"]) == next(iter(scores.items()))
    assert (answer["model"], answer["truncated"]) == ("nli", False)


async def test_several_labels_may_be_right_each_on_its_own(client: AsyncClient) -> None:
    together = (await ask(client, multi_label=True)).json()["scores"]
    for one in together:
        alone = (await ask(client, labels=[one["label"]])).json()
        assert alone["score"] == pytest.approx(one["score"])
    assert sum(one["score"] for one in together) != pytest.approx(1)


async def test_the_template_makes_the_sentence_that_the_model_reads(client: AsyncClient) -> None:
    default = (await ask(client)).json()
    named = (await ask(client, hypothesis_template="This example is {}.")).json()
    other = (await ask(client, hypothesis_template="About {}!")).json()
    assert default == named != other


async def test_each_text_of_a_batch_has_its_answer_or_its_error(client: AsyncClient) -> None:
    texts = [TEXT, "", "poison", "x" * 61, "x" * 60]
    answer = (await many(client, texts)).json()
    alone = (await ask(client)).json()
    results = answer["results"]
    assert results[0] == {k: v for k, v in alone.items() if k != "model"}
    codes = [result.get("error", {}).get("code") for result in results]
    assert codes == [None, "text_empty", "inference_failed", "text_too_long", None]
    assert [results[0]["truncated"], results[4]["truncated"]] == [False, True]
    assert answer["model"] == "nli"
    none = (await many(client, ["", ""])).json()["results"]
    assert [result["error"]["code"] for result in none] == ["text_empty"] * 2


@pytest.mark.parametrize(
    "body",
    [
        {"text": ""},
        {"labels": []},
        {"labels": ["a", "a"]},
        {"labels": [""]},
        {"labels": "a,b"},
        {"labels": [f"label {n}" for n in range(101)]},
        {"hypothesis_template": "no place"},
        {"hypothesis_template": "{} and {}"},
        {"hypothesis_template": "{0.__class__} {}"},
        {"multi_label": "yes"},
        {"text": "x" * 61},
    ],
)
async def test_a_wrong_body_is_422(client: AsyncClient, body: dict[str, Any]) -> None:
    check_problem(await ask(client, **body), 422, "invalid_request")


async def test_a_batch_is_bounded_by_texts_times_labels(client: AsyncClient) -> None:
    labels = [str(n) for n in range(64)]
    assert (await many(client, ["x"] * 33, labels=labels)).status_code == 422
    assert (await many(client, ["x"] * 32, labels=labels)).status_code == 200


async def test_an_unknown_model_and_a_failing_text_say_so(client: AsyncClient) -> None:
    check_problem(await ask(client, model_name="none"), 404, "model_not_found")
    check_problem(await many(client, [TEXT], model_name="none"), 404, "model_not_found")
    check_problem(await ask(client, text="poison"), 500, "inference_failed")


async def test_models_and_the_log_tell_of_it(client: AsyncClient) -> None:
    (model,) = (await client.get("/models")).json()["models"]
    assert (model["task"], model["max_chars"]) == ("zero-shot-classification", 60)
    assert model["labels"] == ["contradiction", "neutral", "entailment"]
    asked = await ask(client, text="for the log")
    rows: list[dict[str, Any]] = []
    while not rows:  # they are written a moment later
        rows = (await client.get("/predictions")).json()["predictions"]
        rows = [r for r in rows if r["request_id"] == asked.headers["x-request-id"]]
    (row,) = rows
    assert (row["task"], row["label"]) == (model["task"], asked.json()["label"])


def test_the_contradiction_is_the_first_class_or_the_last() -> None:
    logits = np.array([[2.0, 0.5, 1.0], [0.0, 3.0, -1.0]], dtype=np.float32)

    def sigmoid(difference: float) -> float:
        return float(1 / (1 + np.exp(-difference)))

    first = likelihoods(logits, 0, is_multi_label=True)
    assert first == pytest.approx([sigmoid(2 - 1), sigmoid(0 + 1)])
    last = likelihoods(logits, 2, is_multi_label=True)
    assert last == pytest.approx([sigmoid(1 - 2), sigmoid(-1 - 0)])
    together = likelihoods(logits, 1, is_multi_label=False)
    assert together == pytest.approx([sigmoid(0.5 - 3), sigmoid(3 - 0.5)])
    assert labelled(["a", "b"], together, is_truncated=False).label == "b"
    assert labelled(["a", "b"], first[:1].repeat(2), is_truncated=False).label == "a"
