"""One line of `app doctor`'s report."""

from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report.

    Args:
        place: the name of the check, such as "memory".
        level: "fail" for what keeps the service from working.
        said: the result.
        advice: what to do about it; "" for nothing.

    """

    place: str
    level: Level
    said: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return it for JSON."""
        return asdict(self)


def good(place: str, said: str) -> Finding:
    """Return a finding without a problem."""
    return Finding(place=place, level="ok", said=said)


def bad(place: str, said: str, advice: str) -> Finding:
    """Return a finding that keeps the service from working."""
    return Finding(place=place, level="fail", said=said, advice=advice)


def doubtful(place: str, said: str, advice: str) -> Finding:
    """Return a finding that works, but perhaps not as intended."""
    return Finding(place=place, level="warn", said=said, advice=advice)
