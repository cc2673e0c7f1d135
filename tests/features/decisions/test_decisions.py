"""`/v1/decisions` and `/v1/systemone`, with a classifier and a zero-shot model."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx2 import AsyncClient
from serving import serving

MODELS = """
[[models]]
name = "sentiment"
task = "text-classification"
engine = "fake"
labels = ["NEGATIVE", "NEUTRAL", "POSITIVE"]

[[models]]
name = "nli"
task = "zero-shot-classification"
engine = "fake"
limits = { max_chars = 200 }
fake = { fail_on = "poison" }
"""
TEXT = "The screen stays black."
PREDICATE = {"type": "predicate", "name": "broken", "instructions": "Something is broken."}
CHOICE = {
    "type": "choice",
    "instructions": "What is it about?",
    "choices": [{"value": "hardware", "description": "A device fails."}, {"value": True}],
}
SCORE = {
    "type": "score",
    "instructions": "How good is it?",
    "levels": [{"label": "negative"}, {"label": "neutral"}, {"label": "positive"}],
}


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("app"), MODELS) as client:
        yield client


async def decide(client: AsyncClient, *questions: Any, model: str = "nli", **body: Any) -> Any:
    sent = {"model": model, "input": TEXT, "questions": list(questions), **body}
    return await client.post("/v1/decisions", json=sent)


async def refused(client: AsyncClient, *questions: Any, **body: Any) -> tuple[str, str]:
    """Return field and code of the error of a request that isn't right."""
    answer = await decide(client, *questions, **body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    return error["param"], error["code"]


async def test_a_zero_shot_model_answers_each_kind_of_question(client: AsyncClient) -> None:
    answer = (await decide(client, PREDICATE, CHOICE, SCORE)).json()
    predicate, choice, score = answer["answers"]
    assert (predicate["type"], predicate["name"]) == ("predicate", "broken")
    assert 0 < predicate["probability"] < 1
    assert [one["value"] for one in choice["probabilities"]] == ["hardware", True]
    assert choice["name"] is None
    likely = max(choice["probabilities"], key=lambda one: one["probability"])
    assert choice["choice"] == likely["value"]
    for one in (choice, score):
        assert sum(each["probability"] for each in one["probabilities"]) == pytest.approx(1)
        assert 0 < one["confidence"] < 1
    numbers = [each["value"] * each["probability"] for each in score["probabilities"]]
    assert score["score"] == pytest.approx(sum(numbers))
    usage = answer["usage"]
    assert usage["input_tokens"] == usage["total_tokens"] > 0
    assert answer["model"] == "nli"


async def test_the_sentence_of_an_option_is_its_description_or_the_template(
    client: AsyncClient,
) -> None:
    labels = ["a device", "a bill"]
    sent = {"text": TEXT, "labels": labels, "hypothesis_template": "It is {}."}
    scores = (await client.post("/zero-shot", json=sent)).json()["scores"]
    expected = {one["label"]: one["score"] for one in scores}
    question = {
        "type": "choice",
        "instructions": "It is {}.",
        "choices": [{"value": "a device"}, {"value": "other", "description": "It is a bill."}],
    }
    (choice,) = (await decide(client, question)).json()["answers"]
    found = [one["probability"] for one in choice["probabilities"]]
    assert found == pytest.approx([expected[label] for label in labels])


async def test_a_classifier_chooses_among_its_labels(client: AsyncClient) -> None:
    sent = {"text": TEXT, "model_name": "sentiment", "top_k": 3}
    scores = (await client.post("/predict", json=sent)).json()["scores"]
    expected = {one["label"]: one["score"] for one in scores}
    two = [expected["NEGATIVE"], expected["POSITIVE"]]
    questions = (
        SCORE,
        {"type": "choice", "choices": [{"value": "NEGATIVE"}, {"value": "positive"}]},
        {"type": "predicate", "instructions": "POSITIVE"},
        {"type": "predicate", "name": "neutral", "instructions": "It is neutral."},
    )
    answer = (await decide(client, *questions, model="sentiment")).json()
    score, choice, by_statement, by_name = answer["answers"]
    assert [one["probability"] for one in score["probabilities"]] == pytest.approx(
        [expected[label] for label in ("NEGATIVE", "NEUTRAL", "POSITIVE")]
    )
    # Of two of three labels: probabilities among the two, confidence among all.
    assert [one["probability"] for one in choice["probabilities"]] == pytest.approx(
        [each / sum(two) for each in two]
    )
    assert choice["confidence"] == pytest.approx(max(two))
    assert by_statement["probability"] == pytest.approx(expected["POSITIVE"])
    assert by_name["probability"] == pytest.approx(expected["NEUTRAL"])


async def test_what_cannot_be_decided_is_400_and_names_its_field(client: AsyncClient) -> None:
    bad = "invalid_request"
    other = {"type": "choice", "choices": [{"value": "NEGATIVE"}, {"value": "sad"}]}
    found = await refused(client, PREDICATE, other, model="sentiment")
    assert found == ("questions[0].instructions", bad)
    assert await refused(client, other, model="sentiment") == ("questions[0].choices", bad)
    assert await refused(client, {"type": "choice"}) == ("questions[0].choices", bad)
    assert await refused(client, {**PREDICATE, "levels": SCORE["levels"]}) == (
        "questions[0].levels",
        bad,
    )
    twice = {"type": "choice", "choices": [{"value": "true"}, {"value": "true"}]}
    assert await refused(client, twice) == ("questions[0].choices", bad)
    assert await refused(client, {"type": "predicate"}) == ("questions[0].instructions", bad)
    assert await refused(client) == ("questions", bad)
    assert await refused(client, {"type": "rank"}) == ("questions[0].type", "unsupported_field")
    assert await refused(client, PREDICATE, input="a" * 201) == ("input", bad)
    assert await refused(client, PREDICATE, seed=1) == ("seed", "unsupported_field")
    many = {"type": "choice", "choices": [{"value": str(number)} for number in range(255)]}
    assert await refused(client, *[many] * 9) == ("questions", bad)
    lost = await decide(client, PREDICATE, model="nothing")
    assert (lost.status_code, lost.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("item", "param", "code"),
    [
        ({"role": "user"}, "input[0].content", "invalid_request"),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
            "input[0].content[0].type",
            "unsupported_field",
        ),
        (
            {"role": "user", "content": [{"type": "input_json"}]},
            "input[0].content[0].data",
            "invalid_request",
        ),
        (
            {"type": "function_call_output", "call_id": "a", "output": "b"},
            "input[0].call_id",
            "invalid_request",
        ),
        ({"role": "user", "content": " "}, "input", "invalid_request"),
    ],
)
async def test_an_item_of_the_input_that_is_not_right_is_named(
    client: AsyncClient, item: Any, param: str, code: str
) -> None:
    assert await refused(client, PREDICATE, input=[item]) == (param, code)


async def test_items_are_read_as_one_text(client: AsyncClient) -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Where is it?"}]},
        {"type": "function_call", "call_id": "1", "name": "track", "arguments": '{"id":7}'},
        {"type": "function_call_output", "call_id": "1", "output": "lost"},
        {"role": "user", "content": [{"type": "input_json", "data": {"order": 7}}]},
    ]
    text = (
        'user: Where is it?\n\ncall of track: {"id":7}\n\nresult of track: lost\n\n'
        'user: {"order":7}'
    )
    answers = [
        (await decide(client, PREDICATE, input=value)).json()["answers"]
        for value in (items, text, TEXT, items[:1], "Where is it?")
    ]
    assert answers[0] == answers[1] != answers[2]
    assert answers[3] == answers[4]


async def test_an_engine_that_fails_fails_the_request(client: AsyncClient) -> None:
    assert (await decide(client, PREDICATE, input="poison")).status_code == 500


async def test_systemone_gives_the_same_by_name(client: AsyncClient) -> None:
    questions = {
        "broken": {"type": "noul", "instructions": "Something is broken."},
        "about": {"type": "choice", "criteria": {"hardware": "A device fails.", "true": None}},
        "mood": {"type": "score", "criteria": ["negative", "neutral", "positive"]},
    }
    sent = {"state": TEXT, "model": "nli", "questions": questions}
    named = (await client.post("/v1/systemone", json=sent)).json()["answers"]
    predicate, choice, score = (await decide(client, PREDICATE, CHOICE, SCORE)).json()["answers"]
    assert named["broken"] == {"type": "noul", "noul": predicate["probability"]}
    assert list(named["about"]["probabilities"].values()) == [
        one["probability"] for one in choice["probabilities"]
    ]
    assert named["about"]["confidence"] == choice["confidence"]
    assert named["mood"]["score"] == score["score"]
    assert named["mood"]["legend"] == {"0": "negative", "1": "neutral", "2": "positive"}


@pytest.mark.parametrize(
    "question",
    [
        {"type": "choice", "criteria": ["a", "b"]},
        {"type": "choice", "criteria": {"a": None}},
        {"type": "score", "criteria": {"a": None, "b": None}},
        {"type": "score"},
        {"type": "noul", "instructions": "a", "criteria": {"maybe": "b"}},
    ],
)
async def test_criteria_of_another_form_are_named(client: AsyncClient, question: Any) -> None:
    sent = {"state": {"a": 1}, "model": "nli", "questions": {"q": question}}
    answer = await client.post("/v1/systemone", json=sent)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "questions.q.criteria")
