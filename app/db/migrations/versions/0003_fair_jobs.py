"""Remember when jobs were claimed, so that callers take turns; count a caller's open ones."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
oldest_program = "0001"


def upgrade() -> None:
    """Add the column and two indexes."""
    op.add_column("jobs", sa.Column("claimed_at", sa.DateTime(timezone=True)))
    op.create_index("ix_jobs_collection_claimed_at", "jobs", ["collection", "claimed_at"])
    op.create_index("ix_jobs_status_collection_due_at", "jobs", ["status", "collection", "due_at"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_jobs_status_collection_due_at", "jobs")
    op.drop_index("ix_jobs_collection_claimed_at", "jobs")
    op.drop_column("jobs", "claimed_at")
