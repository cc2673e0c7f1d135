"""What `app doctor` found at one place."""

from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report.

    Args:
        place: what was looked at, such as "memory".
        level: "fail" for what keeps the service from working.
        said: what was found.
        advice: what to do about it; "" when nothing is to be done.

    """

    place: str
    level: Level
    said: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return it for JSON."""
        return asdict(self)


def good(place: str, said: str) -> Finding:
    """Return a finding that asks for nothing."""
    return Finding(place=place, level="ok", said=said)


def bad(place: str, said: str, advice: str) -> Finding:
    """Return a finding that keeps the service from working."""
    return Finding(place=place, level="fail", said=said, advice=advice)


def doubtful(place: str, said: str, advice: str) -> Finding:
    """Return a finding that works, but perhaps not as meant."""
    return Finding(place=place, level="warn", said=said, advice=advice)
