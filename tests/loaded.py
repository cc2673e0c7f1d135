"""A model for tests of what loads and unloads models."""

from dataclasses import dataclass, field
from threading import Event


@dataclass(kw_only=True)
class Loaded:
    """Serves nothing, and notes that it is closed."""

    can_close_early: bool = False
    failure: Exception | None = None
    closed: Event = field(default_factory=Event)

    def problems(self, *, max_call_s: float) -> list[str]:
        return [f"longer than {max_call_s}"]

    def longest_call_s(self) -> float:
        return 0.0

    def close(self, *, timeout_s: float) -> None:
        self.closed.set()
        if self.failure is not None:
            raise self.failure
