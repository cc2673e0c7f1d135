"""What the layers above a server may do with a request's connection."""

from collections.abc import Callable

Callback = Callable[[], None]


class Connection:
    """One client's connection; the server puts it into a request's scope, as `state["connection"]`.

    Args:
        abort: closes it at once, whatever is still to be sent.

    """

    __slots__ = ("_on_end", "abort")

    def __init__(self, abort: Callback) -> None:
        self.abort = abort
        self._on_end: set[Callback] = set()

    def watch(self, on_end: Callback) -> None:
        """Have a function called when the connection ends, however it does."""
        self._on_end.add(on_end)

    def unwatch(self, on_end: Callback) -> None:
        """Don't call it any more."""
        self._on_end.discard(on_end)

    def end(self) -> None:
        """Call those that watch: the server does so once the connection is gone."""
        for on_end in tuple(self._on_end):
            on_end()
