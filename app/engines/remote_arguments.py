"""What a remote chat model is asked: as it was sent where it speaks OpenAI's dialect.

Imports LangChain, so it is imported when a chat model is loaded, and not before.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel

from app.engines.chat_base import GenerationOptions, Message
from app.engines.tool_calls import TOOL_OPTIONS, tool_use
from app.errors import OptionsRefusedError, UnsupportedFieldError

# Options that are OpenAI's or its servers'; LangChain's integrations share the others.
DIALECT = (
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "reasoning_effort",
    "logprobs",
    "top_logprobs",
    "top_k",
    "min_p",
    "repetition_penalty",
    "ignore_eos",
    "chat_template_kwargs",
)
AS_SENT = ("response_format", *TOOL_OPTIONS, *DIALECT)


def refuse_dialect(options: GenerationOptions) -> None:
    """Refuse what only servers of OpenAI's dialect have.

    Raises:
        UnsupportedFieldError: one of these options is set.

    """
    for name in options.as_openai():
        if name in DIALECT:
            raise UnsupportedFieldError(
                name, detail=f"{name!r} is not supported by this model's provider."
            )


def arguments_of(
    options: GenerationOptions,
    messages: Sequence[Message],
    *,
    chat_model: BaseChatModel,
    is_openai: bool,
) -> dict[str, Any]:
    """Return options as the arguments of a provider's integration.

    Args:
        options: of one generation.
        messages: which the chat model gets besides; OpenAI's gets them as they were sent.
        chat_model: the provider's integration.
        is_openai: whether it is OpenAI's.

    Raises:
        OptionsRefusedError: the integration has no tools.

    """
    arguments = options.as_openai()
    if "stop" in arguments:
        arguments["stop"] = list(arguments["stop"])
    if not is_openai:
        return _with_tools(arguments, options, chat_model)
    # As arguments of their own they would be changed on their way: with `response_format` OpenAI's
    # client parses the answer, and raises when `max_tokens` has cut it.
    own = {name: arguments.pop(name) for name in AS_SENT if name in arguments}
    body = {**options.sent, **own}
    if any(message.sent is not None for message in messages):
        body["messages"] = [_as_sent(message) for message in messages]
    return {**arguments, "extra_body": body} if body else arguments


def _as_sent(message: Message) -> Mapping[str, Any]:
    """Return a message as its client wrote it; the system prompt of the model's entry has none."""
    return message.sent or {"role": message.role, "content": message.content}


def _with_tools(
    arguments: Mapping[str, Any], options: GenerationOptions, chat_model: BaseChatModel
) -> dict[str, Any]:
    """Return arguments with tools as LangChain converts them for the provider."""
    rest = {name: value for name, value in arguments.items() if name not in TOOL_OPTIONS}
    use = tool_use(options)
    if use is None:
        return rest
    tools = [{"type": "function", "function": dict(tool)} for tool in use.tools]
    # LangChain's word for one of all tools, whatever the provider calls it.
    required = use.names[0] if len(use.names) == 1 else "any"
    try:
        bound = chat_model.bind_tools(tools, tool_choice=required if use.is_required else None)
    except NotImplementedError:
        refused = OptionsRefusedError("This model takes no tools.", extensions={"field": "tools"})
        raise refused from None
    return {**rest, **getattr(bound, "kwargs", {})}
