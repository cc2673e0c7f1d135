"""Keep feedback on predictions and references of drift, and find failures and versions quickly."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"
oldest_program = "0001"

# Spelled out, not taken from tables.py: what a migration did must not change with it.
moment = sa.DateTime(timezone=True)
json = sa.JSON().with_variant(JSONB(), "postgresql")
FAILED = sa.text("status <> 200")


def upgrade() -> None:
    """Make the tables and indexes."""
    op.create_table(
        "prediction_feedback",
        sa.Column("time", moment, primary_key=True),
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("key_id", sa.BigInteger()),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Text()),
        sa.Column("given_at", moment, nullable=False),
        sa.Column("label", sa.Text()),
        sa.Column("correct", sa.Boolean()),
        sa.Column("score", sa.Double()),
        sa.Column("comment", sa.Text()),
    )
    op.create_table(
        "drift_references",
        sa.Column("model", sa.Text(), primary_key=True),
        sa.Column("version", sa.Text(), primary_key=True),
        sa.Column("taken_at", moment, nullable=False),
        sa.Column("counts", json, nullable=False),
    )
    op.create_index("ix_predictions_version_time_id", "predictions", ["version", "time", "id"])
    for column in ("status", "error"):
        op.create_index(
            f"ix_predictions_{column}_time_id",
            "predictions",
            [column, "time", "id"],
            sqlite_where=FAILED,
            postgresql_where=FAILED,
        )


def downgrade() -> None:
    """Drop them."""
    for column in ("error", "status", "version"):
        op.drop_index(f"ix_predictions_{column}_time_id", "predictions")
    op.drop_table("drift_references")
    op.drop_table("prediction_feedback")
