"""`/embed`."""

from collections.abc import Sequence
from functools import partial

from fastapi import APIRouter, Depends

from app.core.callers import Scope
from app.errors import UnsupportedFieldError
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.large_answers import LargeAnswer, fields_of, large_answer, list_of, plain
from app.http.problems import WITH_BODY, WITH_KEY, WITH_MODEL, problems
from app.http.task_runner import RunnerDep, TaskRunner
from app.services.embeddings import EMBEDDERS, EmbeddingParameters, Embeddings, embeddings_of
from app.services.places import Place, place_in
from app.tasks.embedding.schemas import EmbeddingFields, EmbedRequest, EmbedResponse

router = APIRouter(
    tags=["embed"], route_class=JsonRoute, dependencies=[Depends(Guard(Scope.EMBED))]
)
# Seven decimals of a number under 1 are more than a float32 has, and half as long as its repr.
TEXTS = place_in("texts")


async def embed_texts(
    run: TaskRunner,
    texts: Sequence[str],
    *,
    model_name: str | None,
    fields: EmbeddingFields,
    place: Place,
) -> Embeddings:
    """Embed the texts of a request of any dialect; a text costs a token of the quota.

    Args:
        run: runs them.
        texts: of the request.
        model_name: None for the default model.
        fields: what else the request says.
        place: names a text in an error, as the body has it.

    Raises:
        ServiceError: as `TaskRunner.together`.

    """
    # With every model the prompts for the two input types are called as the types.
    name = fields.input_type if fields.prompt_name is None else fields.prompt_name
    return await run.together(
        EMBEDDERS,
        texts,
        model_name=model_name,
        answer=partial(embeddings_of, place=place),
        plan=EmbeddingParameters(prompt_name=name, dimensions=fields.dimensions).plan,
        charged_tokens=len(texts),
    )


@router.post(
    "/embed",
    summary="Embed texts",
    responses=problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL, UnsupportedFieldError),
    response_model=EmbedResponse,
)
async def embed(body: EmbedRequest, run: RunnerDep) -> LargeAnswer:
    """Embed up to 256 texts; `truncated` names those that were cut to the model's window."""
    embeddings = await embed_texts(
        run, body.texts, model_name=body.model_name, fields=body, place=TEXTS
    )
    return await large_answer(
        lambda: fields_of(
            {
                "model": embeddings.model,
                "dimensions": embeddings.dimensions,
                "embeddings": list_of(plain(embeddings.vectors)),
                "truncated": embeddings.truncated,
            }
        ),
        values=embeddings.vectors.size,
    )
