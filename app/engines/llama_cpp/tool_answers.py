"""Answers with tools, of models whose template knows none: in words, and held by a grammar."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.engines.chat_base import Generation, GenerationOptions, Message, OnToken
from app.engines.llama_cpp.tool_prompt import in_words
from app.engines.llama_cpp.tool_reader import CallReader, CallWatch
from app.engines.llama_cpp.tool_schemas import call_format
from app.engines.tool_calls import ToolUse, tool_use

# Generates without tools: messages, options, what takes the text.
Generate = Callable[[Sequence[Message], GenerationOptions, OnToken], Generation]
CALLED = "tool_calls"


def check_tools(options: GenerationOptions, *, context_tokens: int) -> None:
    """Check that a grammar can hold the calls.

    Raises:
        OptionsRefusedError: it would be too large.

    """
    use = tool_use(options)
    if use is None:
        return
    if use.is_required or use.has_many or options.response_format is not None:
        call_format(use, context_tokens=context_tokens, answer=_other_answer(use, options))
    else:
        for name in use.names:  # the model chooses one, and is held to that
            call_format(use.only(name), context_tokens=context_tokens)


def answer_in_words(
    generate: Generate,
    messages: Sequence[Message],
    options: GenerationOptions,
    *,
    on_token: OnToken,
    context_tokens: int,
) -> Generation:
    """Generate an answer that may, or has to, call tools.

    Where it may, the model writes freely until it has begun a call, and then again from the start,
    held to that tool; the prompt is in the prefix cache by then.
    """
    use = tool_use(options)
    spoken = in_words(messages, use)
    plain = replace(options, tools=(), tool_choice=None, parallel_tool_calls=None)
    if use is None:
        return generate(spoken, plain, on_token)
    if not use.is_required and options.response_format is None:
        watch = CallWatch(use.names, on_token)
        answer = generate(spoken, plain, watch.take)
        if watch.called is None:
            watch.flush()
            return answer
        use = replace(use, is_required=True) if use.has_many else use.only(watch.called)
    other = _other_answer(use, options)
    held = call_format(use, context_tokens=context_tokens, answer=other)
    reader = CallReader(use.names, on_token, may_be_text=other is not None)
    # `stop` ends texts; it would cut the JSON.
    answer = generate(spoken, replace(plain, response_format=held, stop=()), reader.take)
    if not reader.calls:
        return answer
    reason = CALLED if answer.finish_reason == "stop" else answer.finish_reason
    return replace(answer, text="", finish_reason=reason, tool_calls=reader.calls)


def _other_answer(use: ToolUse, options: GenerationOptions) -> Mapping[str, Any] | None:
    """Return the format of an answer without calls; None: there has to be one."""
    return None if use.is_required else options.response_format
