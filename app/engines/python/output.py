"""What a user's class prints: not mixed with the log, and not shown, as it may be an input."""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

log = logging.getLogger(__name__)

_local = threading.local()
_lock = threading.Lock()
_depth = 0
_originals: tuple[TextIO, TextIO] | None = None


class Printed:
    """Takes what one thread prints while it runs user code.

    Args:
        is_kept: whether its text is kept, up to `MAX_KEPT_CHARS`.

    """

    MAX_KEPT_CHARS = 2_000

    def __init__(self, *, is_kept: bool) -> None:
        self._is_kept = is_kept
        self.chars = 0
        self.text = ""

    def write(self, text: str) -> None:
        """Count a text, and keep it if it may be kept."""
        self.chars += len(text)
        if self._is_kept and len(self.text) < self.MAX_KEPT_CHARS:
            self.text = (self.text + text)[: self.MAX_KEPT_CHARS]


class _Switch:
    """A stream that gives what a thread writes to its `Printed`, where it has one."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        printed: Printed | None = getattr(_local, "printed", None)
        if printed is not None:
            printed.write(text)
        elif self._stream is not None:  # a process may have none
            self._stream.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # of any stream
        return getattr(self._stream, name)


@contextmanager
def caught(printed: Printed) -> Iterator[None]:
    """Give what this thread prints meanwhile to `printed`; other threads print as before."""
    _enter()
    before: Printed | None = getattr(_local, "printed", None)
    _local.printed = printed
    try:
        yield
    finally:
        _local.printed = before
        _leave()


def _enter() -> None:
    """Put the switches in the place of the streams, for the first thread that needs them."""
    global _depth, _originals  # noqa: PLW0603  # as `sys.stdout` is one for all
    with _lock:
        if _depth == 0:
            _originals = (sys.stdout, sys.stderr)
            sys.stdout, sys.stderr = _Switch(sys.stdout), _Switch(sys.stderr)
        _depth += 1


def _leave() -> None:
    global _depth, _originals  # noqa: PLW0603  # as above
    with _lock:
        _depth -= 1
        if _depth == 0 and _originals is not None:
            sys.stdout, sys.stderr = _originals
            _originals = None


class Output:
    """Catches what a class prints, and logs it, or that it prints.

    Args:
        model: its name.
        shows_output: whether the log has the text.

    """

    def __init__(self, model: str, *, shows_output: bool) -> None:
        self._model = model
        self._shows_output = shows_output
        self._is_told = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch what this thread prints meanwhile."""
        printed = Printed(is_kept=self._shows_output)
        try:
            with caught(printed):
                yield
        finally:
            if printed.chars:
                self._log(printed)

    def _log(self, printed: Printed) -> None:
        fields = {"model": self._model, "chars": printed.chars}
        if self._shows_output:
            log.info("model_printed", extra=fields | {"text": printed.text})
        elif not self._is_told:
            self._is_told = True
            advice = "not shown, as it may hold inputs or secrets; use logging, or set LOG_INPUTS"
            log.warning("model_printed", extra=fields | {"advice": advice})
