"""The wire contracts of `/tei/tokenize` and `/tei/info`."""

from importlib.metadata import version
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from app.engines.base import Task
from app.http.hub import Texts
from app.models.catalog import ModelSpec
from app.models.schemas import MAX_BATCH_TEXTS, Request, Response


class TokenizeRequest(Request):
    """A text or several, whose tokens are shown."""

    inputs: str | Texts
    add_special_tokens: bool = True
    prompt_name: Annotated[None, Field(description="Prompts aren't shown.")] = None


class TeiInfo(Response):
    """The model that answers, as text-embeddings-inference describes it.

    Numbers that this service hasn't, such as how many requests run at once, are left out.
    """

    model_id: str
    model_sha: str | None
    model_dtype: Literal["float32"] = "float32"  # of what it answers
    model_type: dict[str, dict[str, Any]]
    max_input_length: int
    max_client_batch_size: int = MAX_BATCH_TEXTS
    auto_truncate: Literal[True] = True
    version: str

    @classmethod
    def of(cls, spec: ModelSpec, *, version: str, engine: Any) -> Self:  # noqa: ANN401  # of any task
        """Describe a model."""
        labels = dict(enumerate(getattr(engine, "labels", ())))
        kinds: dict[str, dict[str, Any]] = {
            Task.EMBEDDING: {"embedding": {"pooling": "model"}},
            Task.RANKING: {"reranker": {"id2label": labels, "label2id": _turned(labels)}},
        }
        classifier = {"classifier": {"id2label": labels, "label2id": _turned(labels)}}
        return cls(
            model_id=spec.name,
            model_sha=version,
            model_type=kinds.get(spec.task, classifier),
            max_input_length=engine.max_tokens,
            version=SERVICE,
        )


def _turned(labels: dict[int, str]) -> dict[str, int]:
    return {label: index for index, label in labels.items()}


SERVICE = version("ml-api")
