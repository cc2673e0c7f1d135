"""Options of sampling and of templates, by the names that llama.cpp has for them."""

from collections.abc import Mapping
from typing import Any

from app.engines.chat_base import GenerationOptions
from app.engines.tool_calls import tool_use
from app.errors import OptionsRefusedError

# What a template gets of the request itself.
OWN = ("messages", "tools")


def check_sampling(options: GenerationOptions) -> None:
    """Refuse what llama.cpp would do in another way.

    Raises:
        OptionsRefusedError: there is something.

    """
    if options.logprobs and tool_use(options) is not None:
        raise OptionsRefusedError(
            "This model has no `logprobs` beside `tools`.", extensions={"field": "logprobs"}
        )
    for name in options.chat_template_kwargs or ():
        if name in OWN:
            raise OptionsRefusedError(
                f"`chat_template_kwargs` can't have `{name}`.",
                extensions={"field": "chat_template_kwargs"},
            )


def as_llama_cpp(fields: Mapping[str, Any], options: GenerationOptions) -> dict[str, Any]:
    """Return OpenAI's fields with those replaced that llama.cpp has in another form.

    Args:
        fields: by OpenAI's names.
        options: of the same generation.

    """
    own = {k: v for k, v in fields.items() if k not in {"repetition_penalty", "reasoning_effort"}}
    if options.repetition_penalty is not None:
        own["repeat_penalty"] = options.repetition_penalty
    if options.logit_bias:
        own["logit_bias"] = [[int(token), bias] for token, bias in options.logit_bias.items()]
    if options.logprobs:
        # Without another token llama.cpp says nothing of the one that it took either.
        own["top_logprobs"] = max(1, options.top_logprobs or 0)
    known = _for_template(options)
    return {**own, "chat_template_kwargs": known} if known else own


def as_completion(fields: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    """Return fields for a text that is gone on with: tokens' scores have another form there."""
    rest = {k: v for k, v in fields.items() if k not in {"is_raw", "logprobs", "top_logprobs"}}
    if fields.get("logprobs"):
        rest["logprobs"] = fields["top_logprobs"]
    return {**rest, "prompt": prompt}


def _for_template(options: GenerationOptions) -> dict[str, Any]:
    """Return what the template gets; one that knows nothing of thinking ignores it."""
    known: dict[str, Any] = {}
    if options.reasoning_effort is not None:
        known["reasoning_effort"] = options.reasoning_effort
        known["enable_thinking"] = options.reasoning_effort != "none"
    return known | dict(options.chat_template_kwargs or {})
