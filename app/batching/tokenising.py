"""How items are prepared: their cost is estimated first, then the engine's tokeniser runs.

Of texts the cost is the number of tokens; an engine of other items says it itself.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any, cast

from app.batching.isolation import run_isolated
from app.batching.requests import QueuedRequest
from app.core.logs import is_private
from app.core.tracing import ITEMS
from app.engines.base import Embedder, Encoded, TextEngine, TextOrPair, TokenClassifier
from app.engines.items import BatchEngine, ItemEngine, OwnThreads, Prepared
from app.errors import InferenceFailedError, TextWithoutTokensError

log = logging.getLogger(__name__)

# English has about 4.5 characters a token; rather too many tokens than too few.
CHARS_PER_TOKEN = 4
SPECIAL_TOKENS = 2
# A call takes some milliseconds at most: texts that come meanwhile wait for it.
TEXTS_AT_ONCE = 64
# Of all texts of a request; so many take a native tokeniser 0.1 ms.
QUICK_TOKENS = 128


def estimate_tokens(text: TextOrPair, prompt: str = "", *, max_tokens: int | None) -> int:
    """Return about how many tokens a text or a pair has; never more than the engine's window.

    Without one, because nothing is cut off, it is a third more: windows overlap by a quarter.
    """
    chars = len(prompt) + (len(text) if isinstance(text, str) else sum(map(len, text)))
    tokens = chars // CHARS_PER_TOKEN + SPECIAL_TOKENS
    return tokens * 4 // 3 if max_tokens is None else min(tokens, max_tokens)


def estimator(engine: BatchEngine) -> Callable[[Sequence[Any], str], int]:
    """Return what estimates the cost of a request's items, given with their prompt."""
    if isinstance(engine, ItemEngine):
        return lambda items, _: engine.estimate(items)
    window = cast("TextEngine", engine).max_tokens
    max_tokens = None if isinstance(engine, TokenClassifier) else window
    return lambda texts, prompt: sum(
        estimate_tokens(text, prompt, max_tokens=max_tokens) for text in texts
    )


def encode_items(
    engine: BatchEngine, items: Sequence[Any], prompt: str
) -> list[Prepared | Exception]:
    """Return the tokens of each text, or the exception of one that has none or can't be read.

    Of other items what their engine makes of them.
    """
    encode = partial(cast("Embedder", engine).encode, prompt=prompt) if prompt else engine.encode
    return [
        # Alone it would fail, and in a batch it would be answered with its padding.
        TextWithoutTokensError() if isinstance(e, Encoded) and e.is_empty else e
        for e in run_isolated(encode, items)
    ]


class Tokenising:
    """Prepares requests in threads: those that wait together in one call.

    A thread is told for the first request, and takes what has come until it begins: to tell one
    for each request took more time than its tokens.

    Args:
        engine: whose items they are.
        threads: where it runs.
        done: called there with each request and its prepared items.
        name: of the model, for the log.

    """

    def __init__(
        self,
        engine: BatchEngine,
        threads: Executor,
        *,
        done: Callable[[QueuedRequest, Sequence[Prepared | Exception]], None],
        name: str,
    ) -> None:
        self._engine = engine
        self._threads = threads
        self._done = done
        self._name = name
        self._waiting: deque[QueuedRequest] = deque()  # as many as the queue admits
        self._is_told = False
        # Items that take long are prepared side by side: a thread for each request.
        self._has_own_threads = isinstance(engine, OwnThreads)
        self._at_once = 1 if self._has_own_threads else TEXTS_AT_ONCE

    def put(self, request: QueuedRequest) -> None:
        """Have a request's items prepared; called on the event loop.

        Raises:
            RuntimeError: there is no thread for it.

        """
        self._waiting.append(request)
        if self._has_own_threads or not self._is_told:
            self._is_told = True
            try:
                self._threads.submit(self._run)
            except RuntimeError:
                self._is_told = False
                self._waiting.remove(request)
                raise

    def is_quick(self, request: QueuedRequest) -> bool:
        """Say whether tokenising takes less than to tell a thread, and no other request waits.

        A hand-over to a thread that sleeps costs 0.1 ms, a short text 0.05 ms. With several
        requests the threads are awake, and the event loop has other work.
        """
        is_native = getattr(self._engine, "tokenises_natively", False)
        return is_native and request.is_alone and request.estimate.tokens <= QUICK_TOKENS

    def run_now(self, request: QueuedRequest) -> None:
        """Tokenise a request where it is called."""
        token = is_private.set(True)
        try:
            self._tokenise([request])
        finally:
            is_private.reset(token)

    def _run(self) -> None:
        """Prepare what waits, in a thread; for what comes from now on another one is told."""
        is_private.set(True)  # the variable's name says it
        self._is_told = False
        while requests := self._take():
            by_prompt: dict[str, list[QueuedRequest]] = {}
            for request in requests:
                by_prompt.setdefault(request.prompt, []).append(request)
            for some in by_prompt.values():
                self._tokenise(some)

    def _take(self) -> list[QueuedRequest]:
        """Return what waits, up to a number of texts that takes a few milliseconds."""
        requests: list[QueuedRequest] = []
        texts = 0
        while texts < self._at_once:
            try:
                requests.append(self._waiting.popleft())
            except IndexError:
                break
            texts += len(requests[-1].items)
        return requests

    def _prepare(self, request: QueuedRequest, items: list[Any]) -> list[Prepared | Exception]:
        """Prepare items of requests with the prompt of this one."""
        if not self._has_own_threads:
            return encode_items(self._engine, items, request.prompt)
        # It takes long, and is of one request: its client may leave between two items.
        prepared: list[Prepared | Exception] = []
        for item in items:
            if request.is_left:
                prepared.append(InferenceFailedError())  # nobody reads it
            else:
                prepared += encode_items(self._engine, [item], request.prompt)
        return prepared

    def _tokenise(self, requests: list[QueuedRequest]) -> None:
        """Tokenise requests with one prompt; each is answered even if that crashes."""
        staying = [() if request.is_left else request.items for request in requests]
        items = [item for some in staying for item in some]
        prepared: list[Prepared | Exception] = []
        began_s = monotonic()
        try:
            prepared = self._prepare(requests[0], items) if items else []
        except BaseException:
            # A panic of a native tokeniser is no Exception.
            if len(requests) > 1:
                for request in requests:
                    self._tokenise([request])
                return
            log.critical("tokeniser_died", exc_info=True, extra={"model": self._name})
            prepared = [InferenceFailedError() for _ in items]
        remaining = iter(prepared)
        for request, some in zip(requests, staying, strict=True):
            if request.trace is not None and request.trace.is_sampled:
                request.trace.add("tokenise", began_s, monotonic(), {ITEMS: len(some)})
            self._done(request, list(islice(remaining, len(some))))
