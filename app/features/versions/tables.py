"""The table of which version of each model serves."""

from datetime import datetime

from sqlalchemy import BigInteger, Text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import JSON

from app.db.tables import Base, UtcDateTime


class ModelStateRow(Base):
    """What operators have decided of a model; the catalogue's entry is told by its hash."""

    __tablename__ = "model_states"

    model: Mapped[str] = mapped_column(Text, primary_key=True)
    entry_hash: Mapped[str] = mapped_column(Text)
    serving: Mapped[str] = mapped_column(Text)
    previous: Mapped[str | None] = mapped_column(Text)
    weights: Mapped[dict[str, float]] = mapped_column(JSON)
    revision: Mapped[int] = mapped_column(BigInteger)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
