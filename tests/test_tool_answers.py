"""What answers with tools cost, where a call is generated twice: freely, then held."""

from collections.abc import Sequence

from app.engines.chat_base import Generation, GenerationOptions, Message, OnToken, Usage
from app.engines.llama_cpp.tool_answers import ToolAnswers

CALL = '{"name": "get_time", "arguments": {}}'
TOOL = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}


def test_the_tokens_of_a_call_that_was_begun_freely_count_too() -> None:
    asked: list[GenerationOptions] = []

    def generate(_: Sequence[Message], options: GenerationOptions, on_token: OnToken) -> Generation:
        asked.append(options)
        pieces = 0
        for piece in CALL:
            pieces += 1
            if on_token(piece):
                break
        usage = Usage(prompt_tokens=10, completion_tokens=pieces)
        return Generation(text=CALL[:pieces], finish_reason="stop", usage=usage)

    answers = ToolAnswers(generate, context_tokens=512, knows_tools=False)
    options = GenerationOptions(tools=(TOOL,))
    answer = answers.answer([Message(role="user", content="Hi")], options, lambda _: False)
    assert [call.name for call in answer.tool_calls] == ["get_time"]
    freely, held = asked
    assert (freely.response_format, held.response_format is None) == (None, False)
    assert answer.usage is not None
    assert len(CALL) < answer.usage.completion_tokens <= 2 * len(CALL)
    assert answer.usage.prompt_tokens == 10
