"""Bound the deletions that SQLite notes for indexes in memory, also where nobody searches."""

from alembic import op

revision = "0004"
down_revision = "0003"
oldest_program = "0001"

DROP = "DROP TRIGGER passages_deleted"
NOTE = """
CREATE TRIGGER passages_deleted AFTER DELETE ON passages
BEGIN
    INSERT INTO deleted_passages (passage_id) VALUES (old.id);
    {then}
END
"""
# An index that is further behind reads everything again.
FORGET = "DELETE FROM deleted_passages WHERE id <= last_insert_rowid() - 100000;"


def upgrade() -> None:
    """Forget the oldest deletion with each new one."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute(DROP)
        op.execute(NOTE.format(then=FORGET))


def downgrade() -> None:
    """Forget none."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute(DROP)
        op.execute(NOTE.format(then=""))
