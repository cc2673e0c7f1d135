"""The object that `/v1/responses` answers."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from app.engines.chat_base import Generation
from app.http.openai_lists import OpenAiList, example_list
from app.http.openai_schemas import InputTokensDetails, OutputTokensDetails
from app.models.schemas import Response, example
from app.tasks.chat.responses.output import INCOMPLETE
from app.tasks.chat.responses.request import ResponseRequest

MESSAGE = {
    "id": "msg_0b9a0d5e6a5f4f6c8c0e1d2f3a4b5c6d00",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [
        {
            "type": "output_text",
            "text": "The capital of France is Paris.",
            "annotations": [],
            "logprobs": [],
        }
    ],
}
ASKED = {
    "id": "msg_0b9a0d5e6a5f4f6c8c0e1d2f3a4b5c6di00",
    "type": "message",
    "role": "user",
    "content": "What is the capital of France?",
}
EXAMPLE = {
    "id": "resp_0b9a0d5e6a5f4f6c8c0e1d2f3a4b5c6d",
    "object": "response",
    "created_at": 1795348800,
    "completed_at": 1795348801,
    "status": "completed",
    "model": "smollm2",
    "output": [MESSAGE],
    "usage": {
        "input_tokens": 27,
        "input_tokens_details": {"cache_write_tokens": 27, "cached_tokens": 0},
        "output_tokens": 8,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 35,
    },
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "previous_response_id": None,
    "store": True,
    "max_output_tokens": 64,
    "temperature": None,
    "top_p": None,
    "text": {"format": {"type": "text"}},
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "metadata": {},
    "background": False,
    "truncation": "disabled",
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "top_logprobs": 0,
    "max_tool_calls": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "user": None,
}
# Fields that are answered as they were sent, and have no effect.
ECHOED = ("max_tool_calls", "prompt_cache_key", "safety_identifier", "user")


class ResponseUsage(Response):
    """Tokens of one response."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class IncompleteDetails(Response):
    """Why the answer isn't whole."""

    reason: str


class ResponseFailure(Response):  # generators of clients have a ResponseError of their own
    """Why there is no answer; only in the last event of a stream."""

    code: str
    message: str


class ResponseObject(Response):
    """A response, whole or as far as it has come."""

    model_config = ConfigDict(json_schema_extra=example(EXAMPLE))

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Literal["in_progress", "completed", "incomplete", "failed"] = "in_progress"
    model: str
    output: Annotated[
        list[dict[str, Any]],
        Field(description="Items: thoughts, messages with `output_text`, calls of functions."),
    ] = []  # noqa: RUF012  # pydantic copies it
    usage: ResponseUsage | None = None
    error: ResponseFailure | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    previous_response_id: str | None
    store: Annotated[bool, Field(description="Whether it is kept.")]
    max_output_tokens: int | None
    temperature: float | None
    top_p: float | None
    text: dict[str, Any]
    tools: list[dict[str, Any]]
    tool_choice: Annotated[Any, Field(description="As it was sent; `auto` without one.")]
    parallel_tool_calls: bool
    metadata: dict[str, str]
    background: bool = False
    truncation: str = "disabled"
    reasoning: Annotated[dict[str, Any], Field(description="The effort that was asked for.")]
    service_tier: str = "default"
    top_logprobs: int = 0
    max_tool_calls: int | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None


class ItemList(OpenAiList[dict[str, Any]]):
    """Items of a kept response's input."""

    model_config = example_list(ASKED)


class DeletedResponse(Response):
    """A response that is no longer kept."""

    model_config = ConfigDict(
        json_schema_extra=example({"id": EXAMPLE["id"], "object": "response", "deleted": True})
    )

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


def begun(body: ResponseRequest, *, response_id: str, created_s: int, model: str) -> ResponseObject:
    """Return a response that has no output yet, with the request's fields."""
    texts = {name: value for name in ECHOED if _fits(name, value := getattr(body, name))}
    return ResponseObject(
        id=response_id,
        created_at=created_s,
        model=model,
        instructions=body.instructions,
        previous_response_id=body.previous_response_id,
        store=body.is_kept,
        max_output_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        text={"format": dict(body.format)},
        tools=[tool.sent for tool in body.tools or ()],
        tool_choice=body.sent.get("tool_choice") or "auto",
        parallel_tool_calls=body.parallel_tool_calls is not False,
        metadata=body.metadata or {},
        reasoning={"effort": body.reasoning and body.reasoning.effort, "summary": None},
        **texts,
    )


def ended(begun: ResponseObject, generation: Generation, **fields: Any) -> ResponseObject:  # noqa: ANN401  # fields of the response
    """Return the response at the end of its generation."""
    reason = INCOMPLETE.get(generation.finish_reason)
    return begun.model_copy(
        update={
            "status": "incomplete" if reason else "completed",
            "incomplete_details": IncompleteDetails(reason=reason) if reason else None,
            "usage": _usage(generation),
            **fields,
        }
    )


def _usage(generation: Generation) -> ResponseUsage | None:
    usage = generation.usage
    if usage is None:
        return None
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(
            cache_write_tokens=usage.cache_write_tokens, cached_tokens=usage.cached_tokens
        ),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=usage.reasoning_tokens),
        total_tokens=usage.total_tokens,
    )


def _fits(name: str, value: object) -> bool:
    """Say whether an ignored field, which isn't checked, can be answered as it is."""
    return isinstance(value, int if name == "max_tool_calls" else str)
