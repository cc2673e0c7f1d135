"""What spans and OTLP metrics say of models: the gen_ai conventions, for chat and embeddings.

Nothing of a text is in them: no prompt, no answer, no stop sequence, no tool.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from app.batching.generations import Slot
from app.batching.requests import Outcome
from app.core.tracing import ITEMS, MODEL, current
from app.engines.base import Task
from app.engines.chat_base import Generation, GenerationOptions
from app.errors import ServiceError
from app.models.catalog import REMOTE, ModelSpec

if TYPE_CHECKING:
    from app.core.spans import Trace
    from app.services.token_stream import FinishedGeneration

CHAT, EMBEDDINGS = "chat", "embeddings"
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUESTED: Final = "gen_ai.request.model"
TOKENS: Final = "mlapi.tokens"
# Options that are numbers; others may be words of the user's.
NUMBERS: Final = ("max_tokens", "temperature", "top_p", "top_k", "seed")
NUMBERS_TOO: Final = ("frequency_penalty", "presence_penalty")


def span_of(spec: ModelSpec) -> tuple[str, str]:
    """Return how the span of a model's run is called."""
    return (EMBEDDINGS if spec.task == Task.EMBEDDING else "inference"), spec.name


def attributes_of(spec: ModelSpec, outcome: Outcome) -> Mapping[str, str | int]:
    """Return what the span of a model's run says of it."""
    found: dict[str, str | int] = {
        MODEL: spec.name,
        ITEMS: len(outcome.rows),
        TOKENS: outcome.tokens,
    }
    if spec.task == Task.EMBEDDING:
        found |= _conventions(EMBEDDINGS, spec)
        found["gen_ai.usage.input_tokens"] = outcome.tokens
    return found


def _conventions(operation: str, spec: ModelSpec) -> dict[str, str]:
    is_remote = spec.engine == REMOTE and spec.source
    provider = spec.source.partition(":")[0] if is_remote and spec.source else spec.engine
    return {OPERATION: operation, PROVIDER: provider, REQUESTED: spec.name}


class ChatTrace:
    """The span of one generation, its wait for a slot included, and its metrics.

    Args:
        above: the trace that it is part of.
        spec: of its model.
        options: of the request.
        slot: that it has got.
        started_s: when it was asked for.

    """

    def __init__(
        self,
        above: "Trace",
        spec: ModelSpec,
        options: GenerationOptions,
        *,
        slot: Slot,
        started_s: float,
    ) -> None:
        self.trace = above  # for what is asked of other servers
        self._attributes = _conventions(CHAT, spec)
        self._started_s = started_s
        if above.is_sampled:
            attributes: dict[str, Any] = {**self._attributes, MODEL: spec.name}
            for name in (*NUMBERS, *NUMBERS_TOO):
                if (value := getattr(options, name)) is not None:
                    attributes[f"gen_ai.request.{name}"] = value
            self.trace = above.child(
                f"{CHAT} {spec.name}",
                attributes,
                kind="client" if spec.engine == REMOTE else "internal",
                start_s=started_s,
            )
            self.trace.add("queue", started_s, slot.started_s)

    @property
    def exemplar(self) -> dict[str, str] | None:
        """What a sample of a histogram says of it; None where it isn't kept."""
        return self.trace.exemplar

    def end(self, finished: "FinishedGeneration", outcome: str) -> None:
        """End the span of a generation that is over, and record its metrics."""
        if self.trace.is_sampled:
            self._note(finished, outcome)
            self.trace.end()
        if (meters := self.trace.telemetry.gen_ai) is None:
            return
        end = finished.end
        usage = end.usage if isinstance(end, Generation) else None
        meters.record(
            self._attributes,
            input_tokens=usage.prompt_tokens if usage else None,
            output_tokens=usage.completion_tokens if usage else finished.tokens,
            seconds=finished.seconds,
            first_token_s=finished.first_token_s,
            error=None if isinstance(end, Generation) else _error(end, outcome),
        )

    def _note(self, finished: "FinishedGeneration", outcome: str) -> None:
        end = finished.end
        found: dict[str, Any] = {"gen_ai.usage.output_tokens": finished.tokens}
        if isinstance(end, Generation):
            found["gen_ai.response.finish_reasons"] = [end.finish_reason]
            if usage := end.usage:
                found["gen_ai.usage.input_tokens"] = usage.prompt_tokens
                found["gen_ai.usage.output_tokens"] = usage.completion_tokens
                found["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
        else:
            self.trace.fail(_error(end, outcome))
        if finished.first_token_s is not None:
            found["gen_ai.response.time_to_first_chunk"] = finished.first_token_s
        self.trace.note(found)


def begin_chat(
    spec: ModelSpec, options: GenerationOptions, *, slot: Slot, started_s: float
) -> ChatTrace | None:
    """Begin the span of a generation that has got its slot; None where tracing is off."""
    above = current()
    if above is None:
        return None
    return ChatTrace(above, spec, options, slot=slot, started_s=started_s)


def _error(end: object, outcome: str) -> str:
    return end.code if isinstance(end, ServiceError) else outcome
