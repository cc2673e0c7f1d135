"""The body of `/v1/decisions`, as OpenAI has it."""

from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field

from app.features.decisions.questions import Kind, Option, Question
from app.features.decisions.state import MAX_ITEMS, InputItem, Parts, words_of
from app.http.openai_schemas import Ignored, Only, OpenAiRequest
from app.models.schemas import ModelName, example

MAX_QUESTIONS = 400
MAX_OPTIONS = 255
MAX_OPTION_CHARS = 1_000
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

    type: Annotated[str, Only(*(kind.value for kind in Kind))]
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
