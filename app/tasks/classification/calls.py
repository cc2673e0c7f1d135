"""How a Python class calls a classifier: texts or pairs in, labels with their scores out."""

from collections.abc import Sequence

from pydantic_core import to_json

from app.engines.base import TextOrPair
from app.engines.python.models import Answers
from app.services.lengths import refuse
from app.services.model_calls import CalledServices, ModelCall, pairs_of, rows_of, texts_of
from app.tasks.classification.labels import CLASSIFIERS
from app.tasks.classification.routes import plan_of


async def answer(call: ModelCall, services: CalledServices) -> Answers:
    """Return `label`, `score` and all `scores` by label, the best first, of each."""
    has_pairs = bool(call.items) and isinstance(call.items[0], list)
    items: Sequence[TextOrPair] = pairs_of(call) if has_pairs else texts_of(call)
    inference = await services.inference.run(
        CLASSIFIERS,
        items,
        model_name=call.model,
        deadline=call.deadline,
        plan=plan_of("items", has_pairs=has_pairs),
        refuse=refuse,
    )
    return to_json(
        [
            {"label": row.label, "score": row.score, "scores": dict(row.scores)}
            for row in rows_of(inference.rows)
        ]
    )
