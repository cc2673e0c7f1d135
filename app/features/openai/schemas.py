"""What OpenAI's dialect shares, and the wire contracts of `/v1/embeddings` and `/v1/models`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from app.errors import UnsupportedFieldError
from app.models.schemas import Request, Response, example
from app.tasks.embedding.schemas import EmbeddingFields


class Only:
    """Marks a field that is taken with these values alone; any other is `unsupported_field`."""

    def __init__(self, *values: object) -> None:
        self._values = values

    def __get_pydantic_core_schema__(self, *_: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"enum": list(self._values)}

    def _check(self, value: object) -> object:
        # To Python 0 is False, and 1 True; to JSON they aren't.
        if any(value == v and isinstance(value, bool) is isinstance(v, bool) for v in self._values):
            return value
        raise unsupported()


def unsupported() -> PydanticCustomError:
    """Return what a validator raises for a value that OpenAI would take, and we don't."""
    return PydanticCustomError(UnsupportedFieldError.code, "This value is not supported")


def listed(value: object) -> object:
    """Take one for a list of one."""
    return [value] if isinstance(value, str) else value


class OpenAiRequest(Request):
    """What bodies under `/v1` share: a field that isn't known here may only be null."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, Only(None)]]


Ignored = Annotated[Any, Field(description="Ignored.")]


def _texts(value: object) -> object:
    """Take one text for a list of one; tokens, which OpenAI takes too, mean nothing here."""
    if isinstance(value, list) and any(isinstance(item, int | list) for item in value):
        raise unsupported()
    return listed(value)


MAX_OPENAI_TEXTS = 2_048  # as OpenAI has it, and clients send by default
InputText = Annotated[str, Field(min_length=1)]
InputTexts = Annotated[list[InputText], Field(min_length=1, max_length=MAX_OPENAI_TEXTS)]


class EmbeddingsRequest(OpenAiRequest, EmbeddingFields):
    """Up to 2048 texts to embed; a longer one than the model's window is cut."""

    model_config = ConfigDict(
        json_schema_extra=example({"model": "minilm", "input": ["A cat sat on the mat."]})
    )

    model: Annotated[str, Field(min_length=1)]
    input: Annotated[
        InputTexts, BeforeValidator(_texts, json_schema_input_type=InputText | InputTexts)
    ]
    encoding_format: Literal["float", "base64"] | None = None
    user: Ignored = None


class EmbeddingsUsage(Response):
    """Tokens of the texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsItem(Response):
    """The vector of one text: numbers, or little-endian float32 in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsResponse(Response):
    """One vector for each text, in their order; of length 1 where the model's own are."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "object": "list",
                "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.0, 0.8]}],
                "model": "minilm",
                "usage": {"prompt_tokens": 8, "total_tokens": 8},
            }
        )
    )

    object: Literal["list"] = "list"
    data: list[EmbeddingsItem]
    model: str
    usage: EmbeddingsUsage


SMOLLM2 = {"id": "smollm2", "object": "model", "created": 1795348800, "owned_by": "ml-api"}


class OpenAiModel(Response):
    """One model that can be used here."""

    model_config = ConfigDict(json_schema_extra=example(SMOLLM2))

    id: str
    object: Literal["model"] = "model"
    created: Annotated[int, Field(description="When it was loaded, in seconds since 1970.")]
    owned_by: str = "ml-api"


class OpenAiModels(Response):
    """The models that can be used here now."""

    model_config = ConfigDict(json_schema_extra=example({"object": "list", "data": [SMOLLM2]}))

    object: Literal["list"] = "list"
    data: list[OpenAiModel]


class OpenAiErrorDetail(Response):
    """What is wrong, and with which field."""

    message: str
    type: str
    param: str | None = None  # in the answer always; not where FastAPI drops null from examples
    code: str


class OpenAiError(Response):
    """An error, as OpenAI's clients expect it."""

    error: OpenAiErrorDetail
