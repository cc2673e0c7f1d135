"""Tell the rows of shadows from those of answers."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
oldest_program = "0001"

INDEX = "ix_predictions_shadows_time_id"


def upgrade() -> None:
    """Add the column; rows that are there count as answers."""
    shadow: sa.Column[bool] = sa.Column(
        "shadow", sa.Boolean(), nullable=False, server_default=sa.false()
    )
    op.add_column("predictions", shadow)
    op.create_index(
        INDEX,
        "predictions",
        ["time", "id"],
        sqlite_where=sa.text("shadow = 1"),
        postgresql_where=sa.text("shadow"),
    )


def downgrade() -> None:
    """Drop both."""
    op.drop_index(INDEX, "predictions")
    op.drop_column("predictions", "shadow")
