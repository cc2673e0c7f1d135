"""What callers say of predictions, within one transaction: stored, read, summed up."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import ColumnElement, Integer, cast, delete, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.features.prediction_log.filters import Filters, Position, row_of
from app.features.prediction_log.tables import FEEDBACK, TABLE
from app.services.prediction_log import PredictionLogEntry

KEY = (FEEDBACK.c.time, FEEDBACK.c.id)
OF_THE_PREDICTION = ("time", "id", "key_id", "model", "version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What a caller said of a prediction.

    Args:
        given_at: when it was said last.
        label: the right one.
        correct: whether the prediction was; where it isn't said, whether its label is that one.
        score: from 0 to 1, how good the answer was.
        comment: in words.

    """

    given_at: datetime
    label: str | None = None
    correct: bool | None = None
    score: float | None = None
    comment: str | None = None


FIELDS = tuple(field.name for field in fields(Feedback))


@dataclass(slots=True, kw_only=True)
class JudgedEntry(PredictionLogEntry):
    """An entry of the log with the feedback on it."""

    feedback: Feedback


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What was said of one version of a model.

    Args:
        model: its name.
        version: of its files.
        count: predictions with feedback.
        judged: of them, those that are said to be correct or wrong.
        correct: of those, the correct ones.
        score: the mean of all that were given; None: none was.

    """

    model: str
    version: str | None
    count: int
    judged: int
    correct: int
    score: float | None

    @property
    def accuracy(self) -> float | None:
        """The share of correct ones among the judged; None without any."""
        return self.correct / self.judged if self.judged else None


class FeedbackRepository:
    """Feedback, within one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session
        is_sqlite = session.get_bind().dialect.name == "sqlite"
        self._insert = sqlite.insert if is_sqlite else postgresql.insert

    def has_prediction(self, position: Position, *, key_id: int | None) -> bool:
        """Say whether a prediction is stored, and belongs to a key; None: to any."""
        return self._find(position, key_id) is not None

    def give(
        self, position: Position, feedback: Feedback, *, key_id: int | None
    ) -> Feedback | None:
        """Store feedback in the place of what was said before; None if there is no such prediction.

        Args:
            position: of the prediction.
            feedback: on it.
            key_id: to which the prediction has to belong; None: to any.

        """
        prediction = self._find(position, key_id)
        if prediction is None:
            return None
        correct = feedback.correct
        if correct is None and feedback.label is not None and prediction["label"] is not None:
            correct = prediction["label"] == feedback.label
        said = {name: getattr(feedback, name) for name in FIELDS} | {"correct": correct}
        of_it = {name: prediction[name] for name in OF_THE_PREDICTION}
        insert = self._insert(FEEDBACK).values(**of_it, **said)
        self._session.execute(insert.on_conflict_do_update(index_elements=KEY, set_=said))
        return Feedback(**said)

    def _find(self, position: Position, key_id: int | None) -> dict[str, object] | None:
        query = select(*(TABLE.c[name] for name in (*OF_THE_PREDICTION, "label"))).where(
            # Nobody can say whether what nobody got was right.
            TABLE.c.time == position.time,
            TABLE.c.id == position.id,
            ~TABLE.c.shadow,
        )
        if key_id is not None:
            query = query.where(TABLE.c.key_id == key_id)
        row = self._session.execute(query).mappings().one_or_none()
        return None if row is None else dict(row)

    def with_feedback(self, entries: Sequence[PredictionLogEntry]) -> list[PredictionLogEntry]:
        """Return entries, newest first as they come; those with feedback as `JudgedEntry`."""
        if not entries:
            return []
        query = select(FEEDBACK).where(
            FEEDBACK.c.time.between(entries[-1].time, entries[0].time),
            FEEDBACK.c.id.in_([entry.id for entry in entries]),
        )
        said = {
            Position(row["time"], row["id"]): Feedback(**{name: row[name] for name in FIELDS})
            for row in self._session.execute(query).mappings()
        }
        return [_judged(entry, said.get(Position.of(entry))) for entry in entries]

    def summaries(self, filters: Filters) -> list[Summary]:
        """Return what was said, by model and version; of filters, times are of predictions."""
        table = FEEDBACK.c
        conditions: list[ColumnElement[bool]] = []
        if filters.key_id is not None:
            conditions.append(table.key_id == filters.key_id)
        if filters.model is not None:
            conditions.append(table.model == filters.model)
        if filters.since is not None:
            conditions.append(table.time >= filters.since)
        if filters.until is not None:
            conditions.append(table.time < filters.until)
        query = (
            select(
                table.model,
                table.version,
                func.count().label("count"),
                func.count(table.correct).label("judged"),
                func.coalesce(func.sum(cast(table.correct, Integer)), 0).label("correct"),
                func.avg(table.score).label("score"),
            )
            .where(*conditions)
            .group_by(table.model, table.version)
            .order_by(table.model, table.version)
        )
        return [Summary(**row) for row in self._session.execute(query).mappings()]

    def delete_to(self, position: Position) -> None:
        """Delete what was said of predictions up to a position, which are deleted too."""
        end = row_of(KEY, position.time, position.id)
        self._session.execute(delete(FEEDBACK).where(tuple_(*KEY) <= end))


def _judged(entry: PredictionLogEntry, feedback: Feedback | None) -> PredictionLogEntry:
    if feedback is None:
        return entry
    columns = {field.name: getattr(entry, field.name) for field in fields(entry)}
    return JudgedEntry(**columns, feedback=feedback)
