"""What the schemas of OpenAI's dialect share."""

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import (
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PrivateAttr,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from app.errors import UnsupportedFieldError
from app.models.schemas import Request, Response

NAMES = {str: "string", bool: "boolean", int: "number"}


class Only:
    """Marks a field that may only have these values; any other is `unsupported_field`.

    Args:
        values: that change nothing, or that are known.
        hint: what to do instead, for the client.

    """

    def __init__(self, *values: object, hint: str | None = None) -> None:
        self._values = values
        self._hint = hint

    def __get_pydantic_core_schema__(self, *_: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        forms = _forms(self._values)
        return forms[0] if len(forms) == 1 else {"anyOf": forms}

    def _check(self, value: object) -> object:
        # To Python 0 is False, and 1 True; to JSON they aren't.
        if any(value == v and isinstance(value, bool) is isinstance(v, bool) for v in self._values):
            return value
        raise unsupported(self._hint)


def _forms(values: Sequence[object]) -> list[dict[str, Any]]:
    """Return schemas that together allow these values, one a type.

    An `enum` of several types, or one without a type, makes generators of clients crash.
    """
    forms: list[dict[str, Any]] = []
    for kind, name in NAMES.items():
        if known := [value for value in values if type(value) is kind]:
            forms.append({"type": name, "enum": known})
    for value in values:
        if isinstance(value, list):
            items = [*_forms(value), {}][0]
            count = len(value)
            forms.append({"type": "array", "items": items, "minItems": count, "maxItems": count})
        elif isinstance(value, dict):  # an empty one
            forms.append({"type": "object", "maxProperties": 0})
    return [*forms, {"type": "null"}] if None in values else forms


def unsupported(hint: str | None = None) -> PydanticCustomError:
    """Return the error for a value that OpenAI accepts and this service doesn't."""
    context = {} if hint is None else {"hint": hint}
    return PydanticCustomError(UnsupportedFieldError.code, "This value is not supported", context)


def listed(value: object) -> object:
    """Turn one text into a list of one."""
    return [value] if isinstance(value, str) else value


class OpenAiRequest(Request):
    """What bodies under `/v1` share: a field that isn't known here may only be null."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, Only(None)]]


class AsSent(OpenAiRequest):
    """A part of a body that remote servers get as the client wrote it."""

    _sent: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def keep_as_sent(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:  # noqa: ANN401  # any JSON
        """Keep what the client wrote."""
        read = handler(value)
        if isinstance(value, dict):
            read._sent = value  # noqa: SLF001  # its own
        return read

    @property
    def sent(self) -> dict[str, Any]:
        """What the client wrote."""
        return self._sent


class OpenPart(OpenAiRequest):
    """A part of a body that has other fields too: engines refuse them, or servers get them."""

    __pydantic_extra__: dict[str, Any]


class OpenAsSent(AsSent):
    """The same, of which remote servers get what the client wrote."""

    __pydantic_extra__: dict[str, Any]


Ignored = Annotated[Any, Field(description="Ignored.")]


class InputTokensDetails(Response):
    """Of a prompt's tokens, those that the prefix cache has from now on, and had before."""

    cache_write_tokens: int = 0  # a response that was kept by an older release has none
    cached_tokens: int


class OutputTokensDetails(Response):
    """How many of an answer's tokens were thoughts, where a remote server says so."""

    reasoning_tokens: int = 0


class OpenAiErrorDetail(Response):
    """What is wrong, and with which field."""

    message: str
    type: str
    param: str | None = None  # in the answer always; not where FastAPI drops null from examples
    code: str


class OpenAiError(Response):
    """An error, as OpenAI's clients expect it."""

    error: OpenAiErrorDetail
