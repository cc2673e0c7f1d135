"""Keep the trace of the request that submitted a job, so that its worker can go on with it."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
oldest_program = "0001"


def upgrade() -> None:
    """Add the column; jobs that are there have none."""
    op.add_column("jobs", sa.Column("trace", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("jobs", "trace")
