"""How a Python class calls a model that classifies by labels of the request."""

import asyncio
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from app.engines.python.models import Answers
from app.services.lengths import check_length
from app.services.model_calls import CalledServices, ModelCall, rows_of, wrong_item
from app.tasks.zero_shot.routes import NLI_MODELS, answer_of
from app.tasks.zero_shot.schemas import ZeroShotRequest


async def answer(call: ModelCall, services: CalledServices) -> Answers:
    """Return `label`, `score` and all `scores` of each item, which is a body of `/zero-shot`."""
    bodies = [_body(number, item) for number, item in enumerate(call.items)]
    return to_json(await asyncio.gather(*(_classify(body, call, services) for body in bodies)))


def _body(number: int, item: Any) -> ZeroShotRequest:  # noqa: ANN401  # parsed JSON
    try:
        return ZeroShotRequest.model_validate(item)
    except ValidationError as invalid:
        message = invalid.errors(include_input=False)[0]["msg"]
        raise wrong_item(number, message, kind="zero_shot_request") from None


async def _classify(
    body: ZeroShotRequest, call: ModelCall, services: CalledServices
) -> dict[str, Any]:
    check_length(services.inference.spec(call.model, NLI_MODELS), text=body.text)
    inference = await services.inference.run(
        NLI_MODELS,
        [(body.text, hypothesis) for hypothesis in body.hypotheses()],
        model_name=call.model,
        deadline=call.deadline,
    )
    _, results = answer_of(body)(inference)
    (result,) = rows_of(results)
    return {"label": result.label, "score": result.score, "scores": dict(result.scores)}
