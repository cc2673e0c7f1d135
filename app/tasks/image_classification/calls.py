"""How a Python class calls a classifier of images: files in base64 in, labels with scores out."""

from pydantic_core import to_json

from app.engines.python.models import Answers
from app.http.images import called_images
from app.services.model_calls import CalledServices, ModelCall, rows_of
from app.tasks.image_classification.routes import CLASSIFIERS, plan_of


async def answer(call: ModelCall, services: CalledServices) -> Answers:
    """Return `label`, `score` and all `scores` by label, the best first, of each."""
    inference = await services.inference.run(
        CLASSIFIERS,
        called_images(call),
        model_name=call.model,
        deadline=call.deadline,
        plan=plan_of,
    )
    rows = [row.scores for row in rows_of(inference.rows)]
    return to_json([{"label": row[0][0], "score": row[0][1], "scores": dict(row)} for row in rows])
