"""How a Python class calls a reranker: a query with a document in, their score out."""

from pydantic_core import to_json

from app.engines.python.models import Answers
from app.services.model_calls import CalledServices, ModelCall, pairs_of, rows_of
from app.services.ranking import RANKERS


async def answer(call: ModelCall, services: CalledServices) -> Answers:
    """Return the score of each pair, in their order; the higher, the better it answers."""
    inference = await services.inference.run(
        RANKERS, pairs_of(call), model_name=call.model, deadline=call.deadline
    )
    return to_json([float(row[0]) for row in rows_of(inference.rows)])
