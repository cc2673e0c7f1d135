"""Answers with tools: which prompt a model gets for them, and what holds its calls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.engines.chat_base import Generation, GenerationOptions, Message, OnToken
from app.engines.llama_cpp.tool_prompt import in_words
from app.engines.llama_cpp.tool_reader import CallReader, CallWatch
from app.engines.llama_cpp.tool_schemas import call_format, check_sent, shown
from app.engines.tool_calls import ToolUse, tool_use

# Generates once: messages, options, what takes the pieces.
Generate = Callable[[Sequence[Message], GenerationOptions, OnToken], Generation]
CALLED = "tool_calls"


class ToolAnswers:
    """Generates answers that may, or have to, call tools.

    Args:
        generate: once; with tools only where the template knows them.
        context_tokens: of one generation, prompt and answer.
        knows_tools: whether the model's template has tools; else they are put into words.

    """

    def __init__(self, generate: Generate, *, context_tokens: int, knows_tools: bool) -> None:
        self._generate = generate
        self._context_tokens = context_tokens
        self._knows_tools = knows_tools

    def check(self, options: GenerationOptions) -> None:
        """Check that a grammar can hold the calls.

        Raises:
            OptionsRefusedError: it would be too large.

        """
        use = tool_use(options)
        if use is None:
            return
        check_sent(use)
        if self._knows_tools:
            shown(use)
        if _is_held(use, options) or use.has_many:
            self._format(use, options)
        elif not self._knows_tools:
            for name in use.names:  # the model chooses one, and is held to that
                self._format(use.only(name), options)

    def answer(
        self, messages: Sequence[Message], options: GenerationOptions, on_token: OnToken
    ) -> Generation:
        """Generate; where a model without tools may call one, it may take two generations.

        It writes freely until it has begun a call, and then again from the start, held to
        that tool; the prompt is in the prefix cache by then.
        """
        use = tool_use(options)
        if not self._knows_tools:
            messages = in_words(messages, use)
            options = replace(options, tools=(), tool_choice=None, parallel_tool_calls=None)
        if use is None:
            return self._generate(messages, options, on_token)
        if not _is_held(use, options):
            if self._knows_tools:
                return self._generate(messages, options, on_token)
            watch = CallWatch(use.names, on_token)
            answer = self._generate(messages, options, watch.take)
            if watch.called is None:
                watch.flush()
                return answer
            use = replace(use, is_required=True) if use.has_many else use.only(watch.called)
            return _with_tokens_of(answer, self._held(use, messages, options, on_token))
        return self._held(use, messages, options, on_token)

    def _held(
        self,
        use: ToolUse,
        messages: Sequence[Message],
        options: GenerationOptions,
        on_token: OnToken,
    ) -> Generation:
        """Generate calls, or what may be in their place."""
        reader = CallReader(use.names, on_token, may_be_text=not use.is_required)
        # `stop` ends texts; it would cut the JSON.
        held = replace(options, response_format=self._format(use, options), stop=())
        answer = self._generate(messages, held, reader.take)
        if not reader.calls:
            return answer
        reason = CALLED if answer.finish_reason == "stop" else answer.finish_reason
        return replace(answer, text="", finish_reason=reason, tool_calls=reader.calls)

    def _format(self, use: ToolUse, options: GenerationOptions) -> Mapping[str, Any]:
        other = None if use.is_required else options.response_format
        return call_format(use, context_tokens=self._context_tokens, answer=other)


def _with_tokens_of(begun: Generation, held: Generation) -> Generation:
    """Count the tokens of a call that was begun freely: they were generated, if not sent."""
    if begun.usage is None or held.usage is None:
        return held
    tokens = begun.usage.completion_tokens + held.usage.completion_tokens
    return replace(held, usage=replace(held.usage, completion_tokens=tokens))


def _is_held(use: ToolUse, options: GenerationOptions) -> bool:
    """Say whether a grammar holds the answer from its first token."""
    return use.is_required or options.response_format is not None
