"""Ranking as TEI's `/rerank` has it."""

from typing import Annotated, Any

from fastapi import Response
from pydantic import Field

from app.core.callers import Scope
from app.http.hub import HubCall, HubRequest, HubTask, hub_answer
from app.http.openai_schemas import Only
from app.http.task_runner import TaskRunner
from app.tasks.rerank.routes import rank_texts
from app.tasks.rerank.schemas import MAX_DOCUMENTS, Query


class TeiRerank(HubRequest):
    """A query, and the texts that may answer it."""

    query: Query
    texts: Annotated[list[str], Field(min_length=1, max_length=MAX_DOCUMENTS)]
    return_text: bool = False
    raw_scores: Annotated[Any, Only(None, False)] = None  # noqa: FBT003  # a value


async def _rank(body: TeiRerank, run: TaskRunner, model_name: str | None) -> Response:
    """Answer the texts' places, the best first."""
    ranking = await rank_texts(run, body.query, body.texts, model_name=model_name, field="texts")
    body.check(ranking.truncated)
    return hub_answer(
        [
            {"index": index, "score": score}
            | ({"text": body.texts[index]} if body.return_text else {})
            for index, score in ranking.best
        ]
    )


CALL = HubCall(body=TeiRerank, scope=Scope.PREDICT, answer=_rank)
HUB = HubTask(inputs=CALL, marks=frozenset({"query", "texts"}), tei={"rerank": CALL})
