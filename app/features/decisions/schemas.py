"""The wire contract of `/v1/decisions`, as OpenAI has it."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from app.features.decisions.questions import Decided, Kind, Option, Question, Verdict
from app.features.decisions.state import MAX_ITEMS, InputItem, Parts, words_of
from app.http.openai_schemas import Ignored, Only, OpenAiRequest
from app.models.schemas import ModelName, Response, example

MAX_QUESTIONS = 400
MAX_OPTIONS = 255
MAX_OPTION_CHARS = 1_000
ANSWER = {
    "answers": [
        {"type": "predicate", "name": "refund", "probability": 0.94},
        {
            "type": "choice",
            "name": None,
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
Text = Annotated[str, Field(min_length=1, max_length=MAX_OPTION_CHARS)]


def _is_value(value: object) -> object:
    """Refuse what is no choice, under the field's own name: a union would add that of its type."""
    if isinstance(value, bool) or (isinstance(value, str) and 0 < len(value) <= MAX_OPTION_CHARS):
        return value
    raise ValueError(f"a text of 1 to {MAX_OPTION_CHARS} characters, or a boolean")


def _to_items(value: object) -> object:
    """Turn a text into the message of a user."""
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


Value = Annotated[str | bool, BeforeValidator(_is_value)]
ItemList = Annotated[list[InputItem], Field(min_length=1, max_length=MAX_ITEMS)]
Items = Annotated[ItemList, BeforeValidator(_to_items, json_schema_input_type=str | ItemList)]
Description = Annotated[str, Field(max_length=MAX_OPTION_CHARS)]


class DecisionChoice(OpenAiRequest):
    """An answer that may be right."""

    value: Value
    description: Description | None = None

    def option(self) -> Option:
        """Return it as backends know it."""
        value = self.value
        text = value if isinstance(value, str) else str(value).lower()
        return Option(text=text, description=self.description or "")


class DecisionLevel(OpenAiRequest):
    """A level of a score."""

    label: Text
    description: Description | None = None

    def option(self) -> Option:
        """Return it as backends know it."""
        return Option(text=self.label, description=self.description or "")


class DecisionQuestion(OpenAiRequest):
    """Whether a statement is true, which choice is right, or which level."""

    type: Annotated[str, Only(*Kind)]
    name: Annotated[str, Field(max_length=MAX_OPTION_CHARS)] | None = None
    instructions: Parts | None = None
    choices: Annotated[
        list[DecisionChoice] | None,
        Field(min_length=2, max_length=MAX_OPTIONS, description="Of a choice, and needed there."),
    ] = None
    levels: Annotated[
        list[DecisionLevel] | None,
        Field(
            min_length=2,
            max_length=MAX_OPTIONS,
            description="Of a score, and needed there; the lowest first.",
        ),
    ] = None

    def question(self, number: int) -> Question:
        """Return it as backends know it.

        Args:
            number: its place in the body.

        Raises:
            InvalidRequestError: it lacks its options, they don't differ, or others are there.

        """
        place = ("questions", number)
        instructions = words_of(self.instructions or (), *place, "instructions")
        asked = Question(
            kind=Kind(self.type), place=place, instructions=instructions, name=self.name
        )
        fields = {Kind.CHOICE: ("choices", self.choices), Kind.SCORE: ("levels", self.levels)}
        own, given = fields.pop(asked.kind, (None, None))
        for field, others in fields.values():
            if others is not None:
                raise asked.fault(f"a {asked.kind} has no {field}", field=field)
        if own is None:
            return asked
        if given is None:
            raise asked.fault("Field required", field=own)
        keys = [c.value if isinstance(c, DecisionChoice) else c.label for c in given]
        if len({(type(key), key) for key in keys}) < len(keys):
            raise asked.fault("they must differ", field=own)
        return Question(
            kind=asked.kind,
            place=place,
            options=tuple(one.option() for one in given),
            instructions=instructions,
            name=self.name,
            options_field=own,
        )


class DecisionRequest(OpenAiRequest):
    """Something to read, and questions about it."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "model": "smollm2",
                "input": "I was charged twice for my order.",
                "questions": [
                    {"type": "predicate", "name": "refund", "instructions": "Money is due back."},
                    {
                        "type": "choice",
                        "instructions": "What is it about?",
                        "choices": [{"value": "billing"}, {"value": "delivery"}],
                    },
                ],
            }
        )
    )

    input: Items
    questions: Annotated[list[DecisionQuestion], Field(min_length=1, max_length=MAX_QUESTIONS)]
    model: ModelName = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    safety_identifier: Ignored = None


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


class InputTokensDetails(Response):
    """Which tokens were read before."""

    cache_write_tokens: int
    cached_tokens: int


class OutputTokensDetails(Response):
    """Which tokens were thoughts: none."""

    reasoning_tokens: int = 0


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
        written = usage.input_tokens - usage.cached_tokens
        return cls(
            input_tokens=usage.input_tokens,
            input_tokens_details=InputTokensDetails(
                cache_write_tokens=written, cached_tokens=usage.cached_tokens
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
