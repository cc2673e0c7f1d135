"""The other processes of a service, as the first process sees them."""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from app.core.child import Child
from app.core.metrics_sum import Report
from app.server.channel import Channel
from app.server.front_end import Place


def front_end_command(place: Place) -> list[str]:
    """Return what starts a front end."""
    return [sys.executable, "-m", "app", "serve", "--front-end", str(place)]


def engine_command(listener: int) -> list[str]:
    """Return what starts the engine's process, given the descriptor on which it listens."""
    return [sys.executable, "-m", "app", "serve", "--engine-process", str(listener)]


@dataclass(slots=True, kw_only=True)
class Watched:
    """A process that the first process starts, and starts again when it ends."""

    child: Child
    pass_fds: tuple[int, ...]  # descriptors that it gets
    channel: Channel | None = None  # while the process runs
    has_opened: bool = False  # whether any process of this place has come so far
    is_listening: bool = False
    is_ready: bool = False
    problems: list[str] = field(default_factory=list)
    heard_s: float = 0.0
    failure: str | None = None  # why it couldn't start
    measured: Report = field(default_factory=list)
    reported: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """What problems and errors call it."""
        return self.child.name

    @property
    def end_event(self) -> str:
        """What the log calls its end."""
        return "engine_process_ended"

    @property
    def fields(self) -> Mapping[str, int]:
        """What log lines say of it."""
        return {}

    def succeed(self) -> None:
        """Have the next process know that it takes the place of one that has ended."""

    def take_state(self, message: Mapping[str, Any]) -> bool:
        """Note what it says of itself; return whether that has changed."""
        before = self.is_listening, self.is_ready, self.problems
        self.heard_s = asyncio.get_running_loop().time()
        self.is_listening = True
        self.is_ready = message["is_ready"]
        self.problems = message["problems"]
        self.has_opened = self.has_opened or message["is_open"]
        return before != (self.is_listening, self.is_ready, self.problems)

    def leave(self) -> None:
        """Note that the process has ended."""
        self.channel = None
        self.is_listening = self.is_ready = False
        self.problems, self.measured = [], []
        self.reported.set()


@dataclass(slots=True, kw_only=True)
class Front(Watched):
    """A front end."""

    place: Place

    @property
    def name(self) -> str:
        """What problems and errors call it."""
        return f"front_end {self.place.number}"

    @property
    def end_event(self) -> str:
        """What the log calls its end."""
        return "front_end_ended"

    @property
    def fields(self) -> Mapping[str, int]:
        """What log lines say of it."""
        return {"front_end": self.place.number}

    def succeed(self) -> None:
        """Have the next process accept nothing before its models are loaded."""
        self.child.command = front_end_command(replace(self.place, is_successor=True))
