"""Embedding and sentence similarity in Hugging Face's dialect, and TEI's `/embed`."""

from typing import Annotated, Any

from fastapi import Response
from pydantic import Field

from app.core.callers import Scope
from app.engines.base import unit
from app.errors import UnsupportedFieldError
from app.http.hub import HubCall, HubRequest, HubTask, hub_answer, texts_in
from app.http.large_answers import large_answer, list_of, plain
from app.http.openai_schemas import Only
from app.http.task_runner import TaskRunner
from app.models.schemas import MAX_BATCH_TEXTS, Request
from app.services.places import place_in
from app.tasks.embedding.routes import embed_texts
from app.tasks.embedding.schemas import EmbeddingFields
from app.tasks.embedding.similarity_routes import cosines

INPUTS = place_in("inputs")
Text = Annotated[str, Field(min_length=1)]
Some = Annotated[list[Text], Field(min_length=1, max_length=MAX_BATCH_TEXTS)]


class Compared(Request):
    """A text, and others to compare with it."""

    source_sentence: Text
    sentences: Some


class EmbedInputs(HubRequest, EmbeddingFields):
    """A text or several to embed, or some to compare."""

    inputs: Text | Some | Compared
    normalize: bool | None = None
    encoding_format: Annotated[Any, Only(None, "float")] = None
    parameters: Annotated[dict[str, Any], Field(max_length=0)] | None = None


async def _answer(body: EmbedInputs, run: TaskRunner, model_name: str | None) -> Response:
    """Answer a vector for each text, also for a single one; or how close sentences are."""
    compared = body.inputs if isinstance(body.inputs, Compared) else None
    if compared is not None:
        texts = [compared.source_sentence, *compared.sentences]
    else:
        texts = texts_in(body.inputs)  # type: ignore[arg-type]  # it isn't `Compared`
    found = await embed_texts(run, texts, model_name=model_name, fields=body, place=INPUTS)
    body.check(found.truncated)
    if compared is not None:
        return hub_answer(cosines(found.vectors))
    vectors = found.vectors
    if body.normalize is False and found.rules.is_unit:
        raise UnsupportedFieldError("normalize", detail="This model's own vectors have length 1.")
    if body.normalize and not found.rules.is_unit:
        vectors = unit(vectors)
    return await large_answer(lambda: list_of(plain(vectors)), values=vectors.size)


CALL = HubCall(body=EmbedInputs, scope=Scope.EMBED, answer=_answer)
HUB = HubTask(
    inputs=CALL,
    marks=frozenset({"source_sentence", "normalize", "prompt_name", "dimensions", "input_type"}),
    takes_plain=True,
    tei={"embed": CALL},
)
