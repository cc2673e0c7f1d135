"""A request for a shared model, as its front end keeps it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.batching.deadline import Deadline
from app.batching.requests import Outcome, QueuedRequest, resolve
from app.engines.base import FloatArray
from app.engines.items import Prepared
from app.errors import ServiceError
from app.sharing.engines import SharedText
from app.sharing.shared_model import SharedModel


@dataclass(slots=True, eq=False, kw_only=True)
class SharedRequest(QueuedRequest):
    """Texts that are answered together.

    Args:
        number: of the request, among those of this front end.
        model: that is asked.
        engine: which tokenised them.
        deadline: when the answer is of no use any more.
        answer: gets the outcome, or the error of all of them.
        prepared: those that are sent.
        places: of each of them among all.
        is_sent: whether the engine's process was asked.

    """

    number: int
    model: SharedModel
    engine: SharedText
    deadline: Deadline
    answer: asyncio.Future[Outcome]
    prepared: list[Prepared] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    is_sent: bool = False

    def take(self, prepared: Sequence[Prepared | Exception]) -> None:
        """Keep the tokens of its texts, or the errors of those that have none."""
        self.encoded = prepared
        for place, item in enumerate(prepared):
            if isinstance(item, Exception):
                self.rows.append(item)
                self.is_truncated.append(False)
                continue
            self.rows.append(None)
            self.is_truncated.append(item.is_truncated)
            self.prepared.append(item)
            self.places.append(place)
            self.tokens += item.cost

    def finish(self, rows: Sequence[FloatArray | Exception]) -> None:
        """Answer it with the rows of the texts that were sent.

        Raises:
            ValueError: they aren't those of its texts.

        """
        found = [
            row if isinstance(row, Exception) else self.engine.row(row, item)
            for row, item in zip(rows, self.prepared, strict=True)
        ]
        for place, row in zip(self.places, found, strict=True):
            self.rows[place] = row
        resolve([self])

    def fail(self, failure: ServiceError) -> None:
        """Answer all of it with an error, unless nobody waits."""
        if not self.answer.done():
            self.answer.set_exception(failure)
