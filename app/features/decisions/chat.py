"""Decides with a chat model: by how likely each option's label is to be its first token."""

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from app.batching.deadline import Deadline
from app.batching.generations import Generations
from app.core.callers import Caller, Scope
from app.engines.base import Task
from app.engines.chat_base import Generation, Message, Usage
from app.engines.first_token import FirstToken, read_in_turn, reader_of
from app.errors import DeadlineExceededError, ForbiddenError, ServiceError, UnsupportedFieldError
from app.features.decisions.prompts import YES_OR_NO, prompt_of
from app.features.decisions.questions import Decided, DecisionUsage, Kind, Question, Verdict
from app.http.answer_log import AnswerLog
from app.models.registry import Lease, ModelRegistry
from app.services.access import Access
from app.services.streaming import CANCEL_TIMEOUT_S, CHAT_MODELS
from app.services.token_stream import CLIENT_LEFT, FinishedGeneration

log = logging.getLogger(__name__)

# Below it the model would say something else than a label: it declines.
MIN_LIKELIHOOD = 0.01
NOT_READABLE = "This model's probabilities can't be read: its server hasn't OpenAI's dialect."
LENGTH = "length"


class ChatDecider:
    """Answers the questions of one request with a chat model.

    Args:
        registry: lends the models.
        access: charges the caller.
        caller: whose request it is.
        answers: logs it.
        deadline: of the request.

    """

    def __init__(
        self,
        registry: ModelRegistry,
        *,
        access: Access,
        caller: Caller,
        answers: AnswerLog,
        deadline: Deadline,
    ) -> None:
        self._registry = registry
        self._access = access
        self._caller = caller
        self._answers = answers
        self._deadline = deadline

    async def decide(
        self, state: str, questions: Sequence[Question], *, model_name: str
    ) -> Decided:
        """Read the state with each question, one after another in one place of the model.

        Raises:
            ForbiddenError: the caller may not chat.
            UnsupportedFieldError: the model's probabilities can't be read.
            InvalidRequestError: a question has more options than the model has labels.
            ContextLengthExceededError: the state with a question is longer than the context.
            OverloadedError, DeadlineExceededError, NotReadyError: as for chat.

        """
        if not self._caller.may(Scope.CHAT):
            raise ForbiddenError(f"The key has no scope {Scope.CHAT.value!r}.")
        settle = await self._access.begin(self._caller, [Message(role="user", content=state)])
        started_s = time.monotonic()
        end: Generation | ServiceError | None = None
        version: str | None = None
        try:
            with self._answers.failures(Task.CHAT, state, model=model_name), ExitStack() as held:
                await self._registry.wake(model_name, CHAT_MODELS, until_s=self._deadline.at_s)
                lease = held.enter_context(self._registry.lease(model_name, CHAT_MODELS))
                version = lease.version
                verdicts, usage = await self._read(lease, held, state, questions)
            end = Generation(text="", finish_reason=LENGTH, usage=usage)
        except ServiceError as error:
            end = error
            raise
        finally:
            settle(
                FinishedGeneration(
                    model=model_name,
                    version=version,
                    end=end,
                    tokens=0,
                    seconds=time.monotonic() - started_s,
                    first_token_s=None,
                )
            )
        entry = self._answers.entry(
            Task.CHAT,
            state,
            model=model_name,
            version=version,
            finish_reason=LENGTH,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
        )
        self._answers.put(entry)
        return Decided(
            model=model_name,
            verdicts=verdicts,
            usage=DecisionUsage(
                input_tokens=usage.prompt_tokens,
                cached_tokens=usage.cached_tokens,
                cache_write_tokens=usage.cache_write_tokens,
                output_tokens=usage.completion_tokens,
            ),
        )

    async def _read(
        self,
        lease: Lease[Generations],
        held: ExitStack,
        state: str,
        questions: Sequence[Question],
    ) -> tuple[tuple[Verdict | None, ...], Usage]:
        """Take a place, read all prompts there, and return what they say."""
        generations = lease.model
        reader = reader_of(generations.engine)
        if reader is None:
            raise UnsupportedFieldError("model", detail=NOT_READABLE)
        labels = [_labels(question, reader.one_token_labels) for question in questions]
        prompts = [
            [Message(role="user", content=prompt_of(state, question, own))]
            for question, own in zip(questions, labels, strict=True)
        ]
        slot = await generations.acquire(self._deadline)
        held.callback(generations.release, slot)

        def note() -> None:
            slot.progress_s = time.monotonic()

        name = f"decide-{lease.spec.name}"
        reading = read_in_turn(
            reader, prompts, thread_name=name, until_s=self._deadline.at_s, on_read=note
        )
        tokens = await self._until_read(generations, reading, held.pop_all())
        usage = _total(tokens)
        generations.metrics.ended(LENGTH)
        generations.metrics.spent(
            prompt=usage.prompt_tokens,
            completion=usage.completion_tokens,
            cached=usage.cached_tokens,
            seconds=0,
        )
        read = zip(labels, tokens, strict=True)
        return tuple(verdict_of(own, token.probabilities) for own, token in read), usage

    async def _until_read(
        self,
        generations: Generations,
        reading: Coroutine[Any, Any, list[FirstToken]],
        held: ExitStack,
    ) -> list[FirstToken]:
        """Wait for what is read; who leaves, or whose time is up, stops it.

        Lease and place, which are held, are given back when its thread has ended.
        """
        metrics = generations.metrics
        outcome: asyncio.Future[list[FirstToken]] = asyncio.get_running_loop().create_future()
        task = generations.start(_fulfil(outcome, generations, reading), held)
        try:
            async with asyncio.timeout(self._deadline.remaining_s):
                return await outcome
        except TimeoutError:
            metrics.ended("deadline")
            raise DeadlineExceededError from None
        except ServiceError:
            metrics.ended("failed")
            raise
        except asyncio.CancelledError:
            metrics.ended(CLIENT_LEFT)
            metrics.cancelled("engine")
            raise
        finally:
            if not task.done():
                task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_TIMEOUT_S)


async def _fulfil(
    outcome: asyncio.Future[list[FirstToken]],
    generations: Generations,
    reading: Coroutine[Any, Any, list[FirstToken]],
) -> None:
    """Put what was read, or our error for what went wrong, where it is waited for."""
    try:
        found = await reading
    except Exception as failure:  # noqa: BLE001  # the boundary to the engine
        error = generations.engine.explain(failure).error
        log.warning("decision_failed", extra={"code": error.code, "cause": type(failure).__name__})
        if not outcome.done():
            outcome.set_exception(error)
    else:
        if not outcome.done():
            outcome.set_result(found)


def verdict_of(labels: Sequence[str], probabilities: Mapping[str, float]) -> Verdict | None:
    """Return how likely options are by their labels; None if the model would say none of them.

    Args:
        labels: one for each option.
        probabilities: of first tokens, by their texts, with or without a space in front.

    """
    is_worded = tuple(labels) == YES_OR_NO  # which models write in several ways
    found = dict.fromkeys(labels, 0.0)
    for text, probability in probabilities.items():
        label = text.strip().capitalize() if is_worded else text.strip()
        if label in found:
            found[label] += probability
    weights = list(found.values())
    return None if sum(weights) < MIN_LIKELIHOOD else Verdict.of(weights)


def _labels(question: Question, known: Sequence[str]) -> tuple[str, ...]:
    """Return the label of each option.

    Raises:
        InvalidRequestError: there are more options than labels.

    """
    if question.kind is Kind.PREDICATE:
        return YES_OR_NO
    count = len(question.options)
    if count > len(known):
        raise question.fault(f"this model tells {len(known)} options apart at most")
    return tuple(known[:count])


def _total(tokens: Sequence[FirstToken]) -> Usage:
    usages = [token.usage for token in tokens]
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
        cache_write_tokens=sum(usage.cache_write_tokens for usage in usages),
    )
