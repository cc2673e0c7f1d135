"""What all tables share, and the tables that the database itself needs; features bring theirs."""

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Integer,
    MetaData,
    SmallInteger,
    Text,
    TypeDecorator,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import JSON

# The newest migration; revisions are numbers of four digits, so that older ones are smaller.
SCHEMA_REVISION = "0010"


class UtcDateTime(TypeDecorator[datetime]):
    """A moment with its time zone, to the microsecond; SQLite has no type for it."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without its zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


# SQLite counts up only what is called INTEGER; that has 64 bits too.
Identity = BigInteger().with_variant(Integer, "sqlite")


Json = JSON().with_variant(JSONB(), "postgresql")


class Base(DeclarativeBase):
    """All tables. Constraints have names, so that a migration can find them again."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class SchemaSupportRow(Base):
    """Of each migration that is applied: the oldest program that can work with its tables."""

    __tablename__ = "schema_support"

    revision: Mapped[str] = mapped_column(Text, primary_key=True)
    oldest_program: Mapped[str] = mapped_column(Text)


class WriteCheckRow(Base):
    """The one row that is written to see that the database takes what is written."""

    __tablename__ = "write_check"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    checked_at: Mapped[datetime] = mapped_column(UtcDateTime)
