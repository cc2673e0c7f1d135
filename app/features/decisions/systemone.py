"""The wire contract of `/v1/systemone`: the same questions, by name."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from app.features.decisions.questions import TRUE_OR_FALSE, Kind, Option, Question, Verdict
from app.features.decisions.schemas import MAX_OPTION_CHARS, MAX_OPTIONS, MAX_QUESTIONS
from app.features.decisions.state import as_text
from app.http.openai_schemas import Only, OpenAiRequest
from app.models.schemas import ModelName, Response, example

MIN_OPTIONS = 2
KINDS = {"noul": Kind.PREDICATE, "choice": Kind.CHOICE, "score": Kind.SCORE}
FORMS = {
    "noul": "an object that describes true and false, or nothing",
    "choice": f"an object of 2 to {MAX_OPTIONS} choices with their descriptions, or null each",
    "score": f"a list of 2 to {MAX_OPTIONS} levels, the lowest first",
}


def _is_json(value: object) -> object:
    """Refuse what is no text, object or list, under the field's own name."""
    if isinstance(value, str | dict | list):
        return value
    raise ValueError("a text, an object or a list")


Json = Annotated[str | dict[str, Any] | list[Any], BeforeValidator(_is_json)]


class SystemOneQuestion(OpenAiRequest):
    """Whether something is so, which choice is right, or which level."""

    type: Annotated[str, Only(*KINDS)]
    instructions: Json | None = None
    criteria: Annotated[
        dict[str, Any] | list[Any] | None,
        Field(
            description="Of a choice: descriptions by choices. Of a score: the levels, the lowest"
            " first. Of a noul: what true and false mean."
        ),
    ] = None

    def question(self, name: str) -> Question:
        """Return it as backends know it.

        Raises:
            InvalidRequestError: its criteria are of another form.

        """
        place, kind = ("questions", name), KINDS[self.type]
        instructions = as_text(self.instructions or "")
        asked = Question(kind=kind, place=place, name=name, instructions=instructions)
        options = self._options()
        if options is None or any(len(o.text) > MAX_OPTION_CHARS for o in options):
            raise asked.fault(
                f"the criteria of a {self.type}: {FORMS[self.type]}", field="criteria"
            )
        return Question(
            kind=kind,
            place=place,
            name=name,
            instructions=instructions,
            options=options,
            options_field="instructions" if kind is Kind.PREDICATE else "criteria",
        )

    def _options(self) -> tuple[Option, ...] | None:
        """Return what the criteria say; None where they are of another form."""
        criteria = self.criteria
        if self.type == "noul":
            told = {} if criteria is None else criteria
            if not isinstance(told, dict) or not set(told) <= {"true", "false"}:
                return None
            pairs = [(one.text, told.get(one.text)) for one in TRUE_OR_FALSE]
        elif (
            criteria is None
            or not MIN_OPTIONS <= len(criteria) <= MAX_OPTIONS
            or isinstance(criteria, dict) is not (self.type == "choice")
        ):
            return None
        elif isinstance(criteria, dict):
            pairs = list(criteria.items())
        else:
            pairs = [(as_text(level), None) for level in criteria]
        return tuple(Option(text=text, description=as_text(told or "")) for text, told in pairs)


class SystemOneRequest(OpenAiRequest):
    """A state, and questions about it by their names."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "model": "smollm2",
                "state": {"subject": "Order", "body": "I was charged twice."},
                "questions": {
                    "refund": {"type": "noul", "instructions": "Is money due back?"},
                    "urgency": {
                        "type": "score",
                        "instructions": "How urgent is it?",
                        "criteria": ["can wait", "today"],
                    },
                },
            }
        )
    )

    state: Json
    questions: Annotated[
        dict[str, SystemOneQuestion], Field(min_length=1, max_length=MAX_QUESTIONS)
    ]
    model: ModelName = None


class NoulAnswer(Response):
    """How likely it is that something is so."""

    type: Literal["noul"] = "noul"
    noul: float


class NamedChoiceAnswer(Response):
    """The likeliest choice."""

    type: Literal["choice"] = "choice"
    choice: str
    confidence: float
    probabilities: dict[str, float]


class NamedScoreAnswer(Response):
    """The mean of the levels' numbers, weighted by their probabilities."""

    type: Literal["score"] = "score"
    score: float
    legend: Annotated[dict[str, str], Field(description="The levels by their numbers.")]
    confidence: float
    probabilities: Annotated[dict[str, float], Field(description="By the levels' numbers.")]


class NamedRefusal(Response):
    """The model gave none of the answers."""

    type: Literal["refusal"] = "refusal"


SystemOneAnswer = NoulAnswer | NamedChoiceAnswer | NamedScoreAnswer | NamedRefusal


class SystemOneUsage(Response):
    """Tokens of all questions together."""

    input_tokens: int
    output_tokens: int


class SystemOneResponse(Response):
    """An answer to each question, by its name."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "answers": {
                    "refund": {"type": "noul", "noul": 0.94},
                    "urgency": {
                        "type": "score",
                        "score": 0.8,
                        "legend": {"0": "can wait", "1": "today"},
                        "confidence": 0.77,
                        "probabilities": {"0": 0.2, "1": 0.8},
                    },
                },
                "model": "smollm2",
                "usage": {"input_tokens": 131, "output_tokens": 2},
            }
        )
    )

    answers: dict[str, SystemOneAnswer]
    model: str
    usage: SystemOneUsage


def named_answer(question: Question, verdict: Verdict | None) -> SystemOneAnswer:
    """Return a verdict as System One has it."""
    if verdict is None:
        return NamedRefusal()
    if question.kind is Kind.PREDICATE:
        return NoulAnswer(noul=verdict.probabilities[0])
    texts = [option.text for option in question.options]
    if question.kind is Kind.CHOICE:
        return NamedChoiceAnswer(
            choice=texts[verdict.best],
            confidence=verdict.confidence,
            probabilities=dict(zip(texts, verdict.probabilities, strict=True)),
        )
    return NamedScoreAnswer(
        score=verdict.score,
        legend={str(number): text for number, text in enumerate(texts)},
        confidence=verdict.confidence,
        probabilities={str(number): p for number, p in enumerate(verdict.probabilities)},
    )
