"""How a Python class calls another one, or a graph: what its route takes in, its answers out."""

from app.engines.python.models import Answers
from app.services.model_calls import CalledServices, ModelCall, rows_of
from app.tasks.python.routes import CLASSES


async def answer(call: ModelCall, services: CalledServices) -> Answers:
    """Return the answer to each item."""
    inference = await services.inference.run(
        CLASSES, call.items, model_name=call.model, deadline=call.deadline
    )
    return b"[%b]" % b",".join(row.content for row in rows_of(inference.rows))
