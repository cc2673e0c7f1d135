"""The wire contract of `/v1/embeddings`."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from app.http.cuts import Cuts
from app.http.openai_schemas import Ignored, OpenAiRequest, listed, unsupported
from app.models.schemas import Response, example
from app.tasks.embedding.schemas import EmbeddingFields

# Clients make them with OpenAI's tokenizers; read with the model's, they would be other words.
NO_TOKENS = (
    "nothing says which tokenizer made the numbers, so send texts"
    " (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))."
)


def _texts(value: object) -> object:
    """Turn one text into a list of one; tokens, which OpenAI takes too, are unsupported."""
    if isinstance(value, list) and any(isinstance(item, int | list) for item in value):
        raise unsupported(NO_TOKENS)
    return listed(value)


MAX_OPENAI_TEXTS = 2_048  # as OpenAI has it, and clients send by default
InputText = Annotated[str, Field(min_length=1)]
InputTexts = Annotated[list[InputText], Field(min_length=1, max_length=MAX_OPENAI_TEXTS)]


class EmbeddingsRequest(OpenAiRequest, EmbeddingFields, Cuts):
    """Up to 2048 texts to embed; a longer one than the model's window is cut."""

    model_config = ConfigDict(
        json_schema_extra=example({"model": "minilm", "input": ["A cat sat on the mat."]})
    )

    model: Annotated[
        str | None, Field(min_length=1, description="Default: the default embedder.")
    ] = None
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
