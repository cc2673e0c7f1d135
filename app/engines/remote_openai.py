"""LangChain's model of OpenAI's chat completions, which keeps what other servers add to them.

Imports LangChain, so it is imported when a chat model is loaded, and not before.
"""

from typing import Any

from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI

from app.engines.thoughts import thought_in

# Where LangChain's other integrations have thoughts, in a message's `additional_kwargs`.
THOUGHTS = "reasoning_content"


class ThinkingChatOpenAI(ChatOpenAI):
    """`ChatOpenAI` with the thoughts of a model, which OpenAI's own servers don't send."""

    def _convert_chunk_to_generation_chunk(
        self,
        chunk: dict[str, Any],
        default_chunk_class: type,
        base_generation_info: dict[str, Any] | None,
    ) -> ChatGenerationChunk | None:
        """Return LangChain's chunk for one of the server's."""
        made = super()._convert_chunk_to_generation_chunk(
            chunk, default_chunk_class, base_generation_info
        )
        choices = chunk.get("choices") or ()
        thought = thought_in(choices[0].get("delta") or {}) if choices else ""
        if made is not None and thought:
            made.message.additional_kwargs[THOUGHTS] = thought
        return made
