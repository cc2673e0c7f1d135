"""Chat where Hugging Face's clients look for it: below the address that they are given."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from app.core.callers import Scope
from app.http.deps import ChatDeadlineDep, RuntimeDep
from app.http.guard import Guard
from app.http.hub import HubTask
from app.http.json_route import JsonRoute
from app.models.schemas import MAX_NAME_CHARS
from app.tasks.chat.accounting import AccountDep
from app.tasks.chat.openai_answers import ChatCompletion
from app.tasks.chat.openai_routes import complete_chat
from app.tasks.chat.openai_schemas import ChatCompletionRequest
from app.tasks.chat.routes import ChatDep

router = APIRouter(
    route_class=JsonRoute, include_in_schema=False, dependencies=[Depends(Guard(Scope.CHAT))]
)


@router.post("/hf/{model_name}/v1/chat/completions", response_model=ChatCompletion)
async def complete_chat_with(
    model_name: Annotated[str, Path(max_length=MAX_NAME_CHARS)],
    body: ChatCompletionRequest,
    chat: ChatDep,
    deadline: ChatDeadlineDep,
    account: AccountDep,
    runtime: RuntimeDep,
) -> ChatCompletion | Response:
    """Answer with the model that the path names, whatever the body says."""
    named = body.model_copy(update={"model": model_name})
    return await complete_chat(named, chat, deadline, account, runtime)


HUB = HubTask(routers=(router,))
