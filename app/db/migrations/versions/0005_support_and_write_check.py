"""Say which programs the tables can serve, and give the check of the database a row to write."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
oldest_program = "0001"


def upgrade() -> None:
    """Make both tables; `app.db.schema` fills the first after each migration."""
    op.create_table(
        "schema_support",
        sa.Column("revision", sa.Text(), primary_key=True),
        sa.Column("oldest_program", sa.Text(), nullable=False),
    )
    op.create_table(
        "write_check",
        sa.Column("id", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("write_check")
    op.drop_table("schema_support")
