"""The answer of `/v1/decisions`, as OpenAI has it."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.features.decisions.questions import Decided, Verdict
from app.features.decisions.schemas import DecisionQuestion
from app.http.openai_schemas import InputTokensDetails, OutputTokensDetails
from app.models.schemas import Response, example

ANSWER = {
    "answers": [
        {"type": "predicate", "name": "refund", "probability": 0.94},
        {
            "type": "choice",
            "name": "topic",
            "choice": "billing",
            "confidence": 0.81,
            "probabilities": [
                {"value": "billing", "probability": 0.88},
                {"value": "delivery", "probability": 0.12},
            ],
        },
    ],
    "model": "smollm2",
    "usage": {
        "input_tokens": 131,
        "input_tokens_details": {"cache_write_tokens": 71, "cached_tokens": 60},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 133,
    },
}


class PredicateAnswer(Response):
    """How likely a statement is to be true."""

    type: Literal["predicate"] = "predicate"
    name: str | None
    probability: float


class ChoiceProbability(Response):
    """How likely a choice is."""

    value: str | bool
    probability: float


class ChoiceAnswer(Response):
    """The likeliest choice."""

    type: Literal["choice"] = "choice"
    name: str | None
    choice: str | bool
    confidence: Annotated[
        float, Field(description="How likely it is among all that the model could have said.")
    ]
    probabilities: list[ChoiceProbability]


class LevelProbability(Response):
    """How likely a level is."""

    label: str
    value: Annotated[int, Field(description="Its number, from 0.")]
    probability: float


class ScoreAnswer(Response):
    """The mean of the levels' numbers, weighted by their probabilities."""

    type: Literal["score"] = "score"
    name: str | None
    score: float
    confidence: Annotated[
        float,
        Field(description="How likely the best level is among all that the model could have said."),
    ]
    probabilities: list[LevelProbability]


class RefusalAnswer(Response):
    """The model gave none of the answers."""

    type: Literal["refusal"] = "refusal"
    name: str | None


DecisionAnswer = PredicateAnswer | ChoiceAnswer | ScoreAnswer | RefusalAnswer


class DecisionUsageAnswer(Response):
    """Tokens of all questions together."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int

    @classmethod
    def of(cls, decided: Decided) -> "DecisionUsageAnswer":
        """Return what decisions cost."""
        usage = decided.usage
        return cls(
            input_tokens=usage.input_tokens,
            input_tokens_details=InputTokensDetails(
                cache_write_tokens=usage.cache_write_tokens, cached_tokens=usage.cached_tokens
            ),
            output_tokens=usage.output_tokens,
            total_tokens=usage.input_tokens + usage.output_tokens,
        )


class DecisionResponse(Response):
    """An answer to each question, in their order."""

    model_config = ConfigDict(json_schema_extra=example(ANSWER))

    answers: list[DecisionAnswer]
    model: str
    usage: DecisionUsageAnswer


def answer_of(question: DecisionQuestion, verdict: Verdict | None) -> DecisionAnswer:
    """Return a verdict as OpenAI has it."""
    name = question.name
    if verdict is None:
        return RefusalAnswer(name=name)
    probabilities = verdict.probabilities
    if question.choices is not None:
        values = [choice.value for choice in question.choices]
        pairs = zip(values, probabilities, strict=True)
        return ChoiceAnswer(
            name=name,
            choice=values[verdict.best],
            confidence=verdict.confidence,
            probabilities=[ChoiceProbability(value=v, probability=p) for v, p in pairs],
        )
    if question.levels is not None:
        levels = zip(question.levels, probabilities, strict=True)
        return ScoreAnswer(
            name=name,
            score=verdict.score,
            confidence=verdict.confidence,
            probabilities=[
                LevelProbability(label=level.label, value=number, probability=p)
                for number, (level, p) in enumerate(levels)
            ],
        )
    return PredicateAnswer(name=name, probability=probabilities[0])
