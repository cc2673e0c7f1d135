"""Decisions of a chat model: labels, places, refusals; and of a real one."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx2 import AsyncClient
from packaged import smollm2
from serving import serving

from app.features.decisions.chat import verdict_of
from app.features.decisions.prompts import YES_OR_NO

MODELS = """
[[models]]
name = "echo"
task = "chat"
engine = "fake"
context_tokens = 60

[[models]]
name = "broken"
task = "chat"
engine = "fake"
fake = { fail_after = 0 }
"""
PREDICATE = {"type": "predicate", "name": "broken", "instructions": "Something is broken."}
SCORE = {
    "type": "score",
    "instructions": "How good is it?",
    "levels": [{"label": "bad"}, {"label": "fair", "description": "neither"}, {"label": "good"}],
}


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    folder = tmp_path_factory.mktemp("app")
    async with serving(folder, MODELS + smollm2(slots=2, context_tokens=512)) as client:
        yield client


async def decide(client: AsyncClient, *questions: Any, text: str = "It is.", **body: Any) -> Any:
    sent = {"model": "echo", "input": text, "questions": list(questions), **body}
    return await client.post("/v1/decisions", json=sent)


async def test_each_question_costs_a_token_and_says_how_sure_it_is(client: AsyncClient) -> None:
    answer = (await decide(client, PREDICATE, SCORE)).json()
    predicate, score = answer["answers"]
    assert 0 < predicate["probability"] < 1
    found = [one["probability"] for one in score["probabilities"]]
    assert sum(found) == pytest.approx(1)
    # Among all that it could have said there are labels of no level.
    assert score["confidence"] < max(found)
    usage = answer["usage"]
    assert usage["output_tokens"] == 2
    assert usage["total_tokens"] == usage["input_tokens"] + 2


async def test_what_a_chat_model_cannot_decide_is_an_error_of_openai_s(
    client: AsyncClient,
) -> None:
    many = {"type": "choice", "choices": [{"value": str(number)} for number in range(9)]}
    answers = [
        await decide(client, many),
        await decide(client, PREDICATE, text="word " * 61),
        await decide(client, PREDICATE, model="broken"),
    ]
    errors = [answer.json()["error"] for answer in answers]
    assert [(a.status_code, e["code"]) for a, e in zip(answers, errors, strict=True)] == [
        (400, "invalid_request"),
        (400, "context_length_exceeded"),
        (500, "inference_failed"),
    ]
    assert [e["param"] for e in errors[:2]] == ["questions[0].choices", "input"]
    # The places are free again.
    assert (await decide(client, PREDICATE)).status_code == 200


def test_labels_are_read_with_a_space_and_in_several_ways_but_not_made_up() -> None:
    verdict = verdict_of(YES_OR_NO, {"yes": 0.2, " Yes": 0.1, "NO": 0.1, "Maybe": 0.5})
    assert verdict is not None
    assert verdict.probabilities == pytest.approx((0.75, 0.25))
    assert verdict.confidence == pytest.approx(0.3)
    letters = verdict_of(("A", "B"), {"a": 0.5, " B": 0.2})
    assert letters is not None
    assert letters.probabilities == (0.0, 1.0)
    assert verdict_of(("A", "B"), {"The": 0.9, "A": 0.004}) is None


async def test_a_real_model_reads_the_state_once(client: AsyncClient) -> None:
    state = "The parcel came late, and the screen of the phone in it stays black. " * 8
    questions = [PREDICATE, SCORE, {**SCORE, "instructions": "How urgent is it?"}]
    answer = (await decide(client, *questions, text=state, model="smollm2")).json()
    assert [one["type"] for one in answer["answers"]] == ["predicate", "score", "score"]
    for one in answer["answers"][1:]:
        assert sum(each["probability"] for each in one["probabilities"]) == pytest.approx(1)
        assert one["confidence"] > 0.01
    usage = answer["usage"]
    # The second and the third question find the state in the prefix cache.
    details = usage["input_tokens_details"]
    assert details["cached_tokens"] > 0.5 * usage["input_tokens"]
    assert details["cache_write_tokens"] == usage["input_tokens"] - details["cached_tokens"]
    same = (await decide(client, *questions[::-1], text=state, model="smollm2")).json()["answers"]
    expected = [one["score"] for one in answer["answers"][1:]]
    assert [one["score"] for one in same[1::-1]] == pytest.approx(expected, abs=0.02)
    # Pairs of letters are labels too, up to as many as OpenAI takes.
    many = {"type": "choice", "choices": [{"value": f"{n}"} for n in range(40)]}
    (choice,) = (await decide(client, many, model="smollm2")).json()["answers"]
    assert choice["type"] in {"choice", "refusal"}
