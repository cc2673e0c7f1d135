"""Remember which version of each model serves, so that restarts and replicas agree."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
oldest_program = "0001"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "model_states",
        sa.Column("model", sa.Text(), primary_key=True),
        sa.Column("entry_hash", sa.Text(), nullable=False),
        sa.Column("serving", sa.Text(), nullable=False),
        sa.Column("previous", sa.Text()),
        sa.Column("weights", sa.JSON(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("model_states")
