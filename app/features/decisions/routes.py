"""`/v1/decisions` and `/v1/systemone`."""

from collections.abc import Sequence

from fastapi import APIRouter, Depends

from app.core.callers import Scope
from app.errors import UnsupportedFieldError
from app.features.decisions.answers import DecisionResponse, DecisionUsageAnswer, answer_of
from app.features.decisions.deciding import DeciderDep
from app.features.decisions.questions import Question
from app.features.decisions.schemas import DecisionRequest
from app.features.decisions.state import as_text, state_of
from app.features.decisions.systemone import (
    SystemOneRequest,
    SystemOneResponse,
    SystemOneUsage,
    named_answer,
)
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.large_answers import LargeAnswer, fields_of, large_answer, list_of
from app.http.problems import WITH_BODY, WITH_CHAT, WITH_KEY, openai_problems

router = APIRouter(
    prefix="/v1",
    tags=["decisions"],
    route_class=JsonRoute,
    dependencies=[Depends(Guard(Scope.PREDICT))],
)
RESPONSES = openai_problems(*WITH_BODY, *WITH_KEY, *WITH_CHAT, UnsupportedFieldError)


@router.post(
    "/decisions",
    summary="Decide, as OpenAI's clients ask for it",
    responses=RESPONSES,
    response_model=DecisionResponse,
)
async def decide(body: DecisionRequest, decider: DeciderDep) -> LargeAnswer:
    """Answer up to 400 questions about a text with a probability for each answer."""
    questions = [question.question(number) for number, question in enumerate(body.questions)]
    decided = await decider.decide(
        state_of(body.input), questions, model_name=body.model, field="input"
    )
    pairs = zip(body.questions, decided.verdicts, strict=True)
    return await large_answer(
        lambda: fields_of(
            {
                "answers": list_of(answer_of(question, verdict) for question, verdict in pairs),
                "model": decided.model,
                "usage": DecisionUsageAnswer.of(decided),
            }
        ),
        values=_options(questions),
    )


@router.post(
    "/systemone",
    summary="Decide, with questions by name",
    responses=RESPONSES,
    response_model=SystemOneResponse,
)
async def decide_by_name(body: SystemOneRequest, decider: DeciderDep) -> LargeAnswer:
    """Answer up to 400 questions about a state, which may be any JSON."""
    questions = [question.question(name) for name, question in body.questions.items()]
    decided = await decider.decide(
        as_text(body.state), questions, model_name=body.model, field="state"
    )
    usage = SystemOneUsage(
        input_tokens=decided.usage.input_tokens, output_tokens=decided.usage.output_tokens
    )
    pairs = zip(questions, decided.verdicts, strict=True)
    return await large_answer(
        lambda: fields_of(
            {
                "answers": fields_of({q.name or "": named_answer(q, found) for q, found in pairs}),
                "model": decided.model,
                "usage": usage,
            }
        ),
        values=_options(questions),
    )


def _options(questions: Sequence[Question]) -> int:
    return sum(len(question.options) for question in questions)
