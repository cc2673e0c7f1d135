"""How a Python class calls a token classifier: texts in, their entities out."""

from functools import partial

from app.engines.python.models import Answers
from app.services.entities import TOKEN_CLASSIFIERS, Aggregation
from app.services.lengths import refuse
from app.services.model_calls import CalledServices, ModelCall, rows_of, texts_of
from app.tasks.token_classification.routes import entities_of, plan_of


async def answer(call: ModelCall, services: CalledServices) -> Answers:
    """Return the entities of each text, as `/ner` does."""
    texts = texts_of(call)
    inference = await services.inference.run(
        TOKEN_CLASSIFIERS,
        texts,
        model_name=call.model,
        deadline=call.deadline,
        plan=partial(plan_of, aggregation=Aggregation.SIMPLE),
        refuse=refuse,
    )
    pairs = zip(texts, rows_of(inference.rows), strict=True)
    return b"[%b]" % b",".join(b"".join(entities_of(*pair)) for pair in pairs)
