"""A regression model over HTTP, on the command line and in the log: numbers of any size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import make_app, running, serve_instead
from test_inference import post

from app.engines.base import Activation, Encoded, FloatArray
from app.tasks.classification.commands import _show_prediction

pytestmark = pytest.mark.core

NUMBERS = (4.4563, -12.5)


class Stars:
    """A classifier whose scores are the numbers of a regression."""

    kind = "test"
    device = "none"
    max_tokens = 500
    labels = ("stars", "mood")
    activation = Activation.NONE

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        return [Encoded(token_ids=[1], is_truncated=False) for _ in texts]

    def classify(self, batch: Sequence[Encoded]) -> FloatArray:
        return np.tile(np.array(NUMBERS, dtype=np.float32), (len(batch), 1))

    def close(self) -> None:
        """Nothing is held."""


async def test_numbers_go_out_as_they_are_and_say_what_they_are(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    async with running(app) as client:
        serve_instead(app, Stars())
        one = (await post(client, "/predict", {"text": "x", "top_k": 2})).json()
        many = (await post(client, "/predict-batch", {"texts": ["x", "y"]})).json()
        schema = (await client.get("/openapi.json")).json()
    assert (one["label"], one["score"]) == ("stars", pytest.approx(4.4563))
    assert [score["score"] for score in one["scores"]] == pytest.approx(list(NUMBERS))
    assert one["problem_type"] == many["problem_type"] == "regression"
    assert [result["score"] for result in many["results"]] == pytest.approx([4.4563, 4.4563])
    for name in ("PredictResponse", "LabelScore"):
        score = schema["components"]["schemas"][name]["properties"]["score"]
        assert not {"minimum", "maximum"} & set(score)


async def test_probabilities_say_nothing_of_it(tmp_path: Path) -> None:
    async with running(make_app(tmp_path)) as client:
        one = (await post(client, "/predict", {"text": "x"})).json()
        many = (await post(client, "/predict-batch", {"texts": ["x"]})).json()
    assert "problem_type" not in one
    assert "problem_type" not in many


def test_the_command_line_shows_numbers_and_not_percents(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer: dict[str, Any] = {"label": "stars", "score": 4.4563, "problem_type": "regression"}
    _show_prediction(answer, as_json=False)
    assert capsys.readouterr().out.split() == ["stars", "4.4563"]
