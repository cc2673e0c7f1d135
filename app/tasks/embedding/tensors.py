"""Embedding in the Open Inference Protocol."""

from collections.abc import Sequence

from app.core.callers import Scope
from app.engines.base import Embedder
from app.http.task_runner import TaskRunner
from app.http.tensors import NumberTensor, Tensors, TensorTask, Texts, wrong_tensor
from app.models.schemas import MAX_BATCH_TEXTS
from app.services.places import place_in
from app.tasks.embedding.routes import embed_texts
from app.tasks.embedding.schemas import EmbeddingFields

TEXT, VECTORS = "text", "embedding"
EMPTY = "An empty text can't be embedded"


def _numbers(engine: Embedder) -> Sequence[NumberTensor]:
    width = min(engine.vector_rules.dimensions or engine.dimensions, engine.dimensions)
    return (NumberTensor(name=VECTORS, width=width),)


async def _answer(texts: Texts, run: TaskRunner, model_name: str) -> Tensors:
    """Answer a vector for each text."""
    if not all(texts[TEXT]):
        raise wrong_tensor(TEXT, EMPTY)
    found = await embed_texts(
        run, texts[TEXT], model_name=model_name, fields=EmbeddingFields(), place=place_in(TEXT)
    )
    return {VECTORS: found.vectors}


TENSORS = TensorTask(
    inputs=(TEXT,),
    scope=Scope.EMBED,
    max_texts=MAX_BATCH_TEXTS,
    numbers=_numbers,
    answer=_answer,
)
