"""Which rows are the reference of a model's version, which are its windows, and what those said."""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from app.features.drift.comparing import Distance, compare
from app.features.drift.counts import Counts
from app.services.prediction_log import AnsweredEntry

# Of versions that answer now, and a few that did: each takes about 10 KB.
MAX_SERIES = 64


class Version(NamedTuple):
    """A model and a version of its files."""

    model: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many rows are counted together.

    Args:
        reference: rows of a reference.
        window: rows of each window.

    """

    reference: int
    window: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What windows are compared with.

    Args:
        counts: of its rows.
        taken_at: when the last of them was answered.

    """

    counts: Counts
    taken_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A window that is full.

    Args:
        closed_at: when its last row was answered.
        rows: that it has.
        distances: from the reference.

    """

    closed_at: datetime
    rows: int
    distances: tuple[Distance, ...]


@dataclass(slots=True, kw_only=True)
class Series:
    """The windows of one version of a model, one after another.

    Args:
        sizes: of windows and the reference.
        seen_at: when its last row was answered.
        counts: of the window that isn't full yet; of the reference, until there is one.
        reference: None: its rows are being counted.
        last: the window before; None: there was none since the reference was taken.

    """

    sizes: Sizes
    seen_at: datetime
    counts: Counts = field(default_factory=Counts)
    reference: Reference | None = None
    last: Closed | None = None

    @property
    def wanted(self) -> int:
        """Rows of what is being counted."""
        return self.sizes.reference if self.reference is None else self.sizes.window

    def add(self, rows: Sequence[AnsweredEntry]) -> int:
        """Count rows, the oldest first; return how many windows they have filled."""
        closed = start = 0
        while start < len(rows):
            some = rows[start : start + self.wanted - self.counts.rows]
            start += len(some)
            self.counts.add(some)
            self.seen_at = some[-1].time
            if self.counts.rows >= self.wanted:
                closed += self._close()
        return closed

    def _close(self) -> int:
        counts, self.counts = self.counts, Counts()
        if self.reference is None:
            self.reference = Reference(counts=counts, taken_at=self.seen_at)
            return 0
        distances = compare(self.reference.counts, counts)
        self.last = Closed(closed_at=self.seen_at, rows=counts.rows, distances=distances)
        return 1

    def adopt(self, reference: Reference) -> None:
        """Compare with another reference; what was counted so far is forgotten."""
        self.reference, self.counts, self.last = reference, Counts(), None

    def restart(self) -> None:
        """Take the reference anew, of the rows that come now."""
        self.reference, self.counts, self.last = None, Counts(), None


class Windows:
    """The series of all versions; the one that was asked longest ago gives way to a new one.

    Args:
        sizes: of windows and references.

    """

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self.series: OrderedDict[Version, Series] = OrderedDict()

    def add(self, rows: Sequence[AnsweredEntry]) -> dict[Version, int]:
        """Count rows; return how many windows of each version they have filled."""
        of_versions: dict[Version, list[AnsweredEntry]] = defaultdict(list)
        for row in rows:
            of_versions[Version(row.model, row.version or "")].append(row)
        return {version: self._add(version, some) for version, some in of_versions.items()}

    def _add(self, version: Version, rows: Sequence[AnsweredEntry]) -> int:
        series = self.series.get(version)
        if series is None:
            series = self.series[version] = Series(sizes=self._sizes, seen_at=rows[0].time)
            if len(self.series) > MAX_SERIES:
                self.series.popitem(last=False)
        self.series.move_to_end(version)
        return series.add(rows)
