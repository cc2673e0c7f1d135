"""A front end, as the first process sees it."""

import asyncio
from dataclasses import dataclass, field

from app.core.child import Child
from app.core.metrics_sum import Report
from app.server.channel import Channel
from app.server.front_end import Place


@dataclass(slots=True, kw_only=True)
class Front:
    """A front end, as the first process sees it."""

    place: Place
    child: Child
    channel: Channel | None = None  # while the process runs
    has_opened: bool = False  # whether any process of this place has come so far
    is_listening: bool = False
    is_ready: bool = False
    problems: list[str] = field(default_factory=list)
    heard_s: float = 0.0
    failure: str | None = None  # why it couldn't start
    measured: Report = field(default_factory=list)
    reported: asyncio.Event = field(default_factory=asyncio.Event)

    def leave(self) -> None:
        """Note that the process has ended."""
        self.channel = None
        self.is_listening = self.is_ready = False
        self.problems, self.measured = [], []
        self.reported.set()
