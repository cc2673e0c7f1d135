"""A remote chat model as what goes on with a text: `/completions` of a server of OpenAI's dialect.

Imports LangChain, so it is imported when a chat model is loaded, and not before.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult

from app.engines.chat_base import GenerationOptions
from app.engines.token_scores import IMPOSSIBLE, ScoredText

# By the same names as ours; others go into `extra_body`, as OpenAI's client calls it.
OPENAI_S = (
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
)
EXTRA = ("top_k", "min_p", "repetition_penalty", "ignore_eos")


def arguments_of(options: GenerationOptions) -> dict[str, Any]:
    """Return the options of a text to go on with, as OpenAI's client takes them."""
    given = options.as_openai()
    arguments = {name: given[name] for name in OPENAI_S if name in given}
    if options.stop:
        arguments["stop"] = list(options.stop)
    if options.logprobs:
        arguments["logprobs"] = options.top_logprobs or 0
    extra = {name: given[name] for name in EXTRA if name in given}
    return {**arguments, "extra_body": extra} if extra else arguments


class CompletionsModel(BaseChatModel):
    """LangChain's interface of `/completions`; the last message is the text to go on with.

    Args:
        client: OpenAI's asynchronous one.
        model_name: as its server knows it.

    """

    client: Any
    model_name: str
    cache: bool = False  # answers are never taken from LangChain's process-wide cache

    @property
    def _llm_type(self) -> str:
        return "openai-completions"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,  # noqa: ANN401  # LangChain's signature
    ) -> ChatResult:
        raise NotImplementedError("it is called on the event loop alone")

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,  # noqa: ANN401  # LangChain's signature
    ) -> ChatResult:
        """Go on with the text, token by token; raises OpenAI's errors."""
        pieces: list[str] = []
        usage: UsageMetadata | None = None
        reason: str | None = None
        asked = {**kwargs, **({"stop": stop} if stop else {})}
        stream = await self.client.completions.create(
            model=self.model_name,
            prompt=messages[-1].text,
            stream=True,
            stream_options={"include_usage": True},
            **asked,
        )
        async with stream:
            async for chunk in stream:
                usage = _usage(chunk.usage) or usage
                for choice in chunk.choices or ():
                    reason = choice.finish_reason or reason
                    text = ScoredText.of(choice.text or "", _scores(choice.logprobs))
                    pieces.append(text)
                    if text and run_manager is not None:
                        await run_manager.on_llm_new_token(text)
        message = AIMessage(
            content="".join(pieces),
            usage_metadata=usage,
            response_metadata={"finish_reason": reason},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def _usage(counts: Any) -> UsageMetadata | None:  # noqa: ANN401  # OpenAI's
    if counts is None:
        return None
    cached = getattr(counts.prompt_tokens_details, "cached_tokens", None)
    written = getattr(counts.prompt_tokens_details, "cache_write_tokens", None)
    return UsageMetadata(
        input_tokens=counts.prompt_tokens,
        output_tokens=counts.completion_tokens,
        total_tokens=counts.total_tokens,
        input_token_details=InputTokenDetails(cache_read=cached or 0, cache_creation=written or 0),
    )


def _scores(logprobs: Any) -> Sequence[Mapping[str, Any]]:  # noqa: ANN401  # OpenAI's
    """Return scores of tokens in the form that chat completions have; llama.cpp sends that one."""
    if logprobs is None:
        return ()
    own = getattr(logprobs, "content", None)
    if own:
        return [{"top_logprobs": [], **token} for token in own]
    tokens, values = logprobs.tokens or (), logprobs.token_logprobs or ()
    others = logprobs.top_logprobs or [{} for _ in tokens]
    return [
        {
            **_score(token, value),
            "top_logprobs": [_score(*one) for one in (likely or {}).items() if one[0] != token],
        }
        for token, value, likely in zip(tokens, values, others, strict=False)
    ]


def _score(token: str, logprob: float | None) -> dict[str, Any]:
    return {
        "token": token,
        "logprob": IMPOSSIBLE if logprob is None else logprob,
        "bytes": [*token.encode("utf-8", "replace")],
    }
