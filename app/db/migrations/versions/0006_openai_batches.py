"""Make the tables of OpenAI's files and batches."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
oldest_program = "0001"

# Spelled out, not taken from tables.py: what a migration did must not change with it.
moment = sa.DateTime(timezone=True)
identity = sa.BigInteger().with_variant(sa.Integer, "sqlite")
json = sa.JSON().with_variant(sa.dialects.postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Make the three tables."""
    _make_files()
    op.create_table(
        "batches",
        sa.Column("key", identity, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("collection", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("window", sa.Text, nullable=False),
        sa.Column("metadata", json),
        sa.Column("input_file_key", sa.BigInteger, nullable=False),
        sa.Column("input_file_id", sa.Text, nullable=False),
        sa.Column("output_file_key", sa.BigInteger),
        sa.Column("error_file_key", sa.BigInteger),
        sa.Column("output_file_id", sa.Text),
        sa.Column("error_file_id", sa.Text),
        sa.Column("output_expires_s", sa.Integer),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("is_open", sa.Boolean, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("completed", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("read_to", sa.BigInteger, nullable=False),
        sa.Column("output_bytes", sa.BigInteger, nullable=False),
        sa.Column("errors", json),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("stalled_attempts", sa.Integer, nullable=False),
        sa.Column("lease", sa.Text),
        sa.Column("lease_offset", sa.BigInteger, nullable=False),
        sa.Column("due_at", moment, nullable=False),
        sa.Column("claimed_at", moment),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.Column("in_progress_at", moment),
        sa.Column("finalizing_at", moment),
        sa.Column("cancelling_at", moment),
        sa.Column("finished_at", moment),
        sa.PrimaryKeyConstraint("key", name="pk_batches"),
        sa.UniqueConstraint("id", name="uq_batches_id"),
        sqlite_autoincrement=True,
    )
    for columns in (
        ["collection", "key"],
        ["collection", "claimed_at"],
        ["is_open", "collection", "due_at"],
        ["input_file_key"],
    ):
        op.create_index(f"ix_batches_{'_'.join(columns)}", "batches", columns)


def _make_files() -> None:
    op.create_table(
        "batch_files",
        sa.Column("key", identity, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("collection", sa.BigInteger, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("chunks", sa.Integer, nullable=False),
        sa.Column("is_complete", sa.Boolean, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment),
        sa.PrimaryKeyConstraint("key", name="pk_batch_files"),
        sa.UniqueConstraint("id", name="uq_batch_files_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_batch_files_collection_key", "batch_files", ["collection", "key"])
    op.create_index("ix_batch_files_expires_at", "batch_files", ["expires_at"])
    op.create_table(
        "batch_file_chunks",
        sa.Column("file_key", sa.BigInteger, nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("file_key", "ordinal", name="pk_batch_file_chunks"),
        sa.ForeignKeyConstraint(
            ["file_key"],
            ["batch_files.key"],
            ondelete="CASCADE",
            name="fk_batch_file_chunks_file_key_batch_files",
        ),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("batches")
    op.drop_table("batch_file_chunks")
    op.drop_table("batch_files")
