"""Make the tables of documents, of their passages with vectors, and of jobs."""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import Vector

revision = "0002"
down_revision = "0001"
oldest_program = "0001"

# Spelled out, not taken from tables.py: what a migration did must not change with it.
moment = sa.DateTime(timezone=True)
identity = sa.BigInteger().with_variant(sa.Integer, "sqlite")
json = sa.JSON().with_variant(sa.dialects.postgresql.JSONB(), "postgresql")
vector = sa.LargeBinary().with_variant(Vector(), "postgresql")

# The default embedder's; others get theirs from the first job that needs it.
DIMENSIONS = 384

DELETED_PASSAGES = """
CREATE TRIGGER passages_deleted AFTER DELETE ON passages
BEGIN
    INSERT INTO deleted_passages (passage_id) VALUES (old.id);
END
"""


def upgrade() -> None:
    """Make all tables."""
    is_postgres = op.get_bind().dialect.name == "postgresql"
    if is_postgres:
        op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    _make_documents()
    if is_postgres:
        op.execute(
            f"CREATE INDEX ix_passages_hnsw_{DIMENSIONS} ON passages"
            f" USING hnsw ((vector::vector({DIMENSIONS})) vector_ip_ops)"
            f" WHERE dimensions = {DIMENSIONS}"
        )
    else:
        op.create_table(
            "deleted_passages",
            sa.Column("id", sa.Integer, nullable=False),
            sa.Column("passage_id", sa.Integer, nullable=False),
            sa.PrimaryKeyConstraint("id", name="pk_deleted_passages"),
            sqlite_autoincrement=True,
        )
        op.execute(DELETED_PASSAGES)
    _make_jobs()
    op.create_table(
        "secrets",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_secrets"),
    )


def _make_documents() -> None:
    op.create_table(
        "documents",
        sa.Column("key", identity, nullable=False),
        sa.Column("collection", sa.BigInteger, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("metadata", json, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_documents"),
        sa.UniqueConstraint("collection", "id", name="uq_documents_collection_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_documents_collection_key", "documents", ["collection", "key"])
    op.create_index("ix_documents_id", "documents", ["id"])
    op.create_table(
        "passages",
        sa.Column("id", identity, nullable=False),
        sa.Column("document_key", sa.BigInteger, nullable=False),
        sa.Column("collection", sa.BigInteger, nullable=False),
        sa.Column("space", sa.Text, nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("start", sa.Integer, nullable=False),
        sa.Column("end", sa.Integer, nullable=False),
        sa.Column("dimensions", sa.Integer, nullable=False),
        sa.Column("vector", vector, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_passages"),
        sa.UniqueConstraint(
            "document_key", "space", "ordinal", name="uq_passages_document_key_space_ordinal"
        ),
        sa.ForeignKeyConstraint(
            ["document_key"],
            ["documents.key"],
            name="fk_passages_document_key_documents",
            ondelete="CASCADE",
        ),
        sqlite_autoincrement=True,
    )


def _make_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("key", identity, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("collection", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("barren", sa.Integer, nullable=False),
        sa.Column("lease", sa.Text),
        sa.Column("lease_until", moment),
        sa.Column("lease_done", sa.Integer, nullable=False),
        sa.Column("due_at", moment, nullable=False),
        sa.Column("error_code", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("result", json),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("request_hash", sa.Text, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("started_at", moment),
        sa.Column("updated_at", moment, nullable=False),
        sa.Column("finished_at", moment),
        sa.Column("run_seconds", sa.Double, nullable=False),
        sa.Column("is_announced", sa.Boolean, nullable=False),
        sa.Column("webhook_url", sa.Text),
        sa.Column("webhook_status", sa.Text),
        sa.Column("webhook_attempts", sa.Integer, nullable=False),
        sa.Column("webhook_due_at", moment),
        sa.Column("webhook_answer", sa.Text),
        sa.Column("webhook_delivered_at", moment),
        sa.PrimaryKeyConstraint("key", name="pk_jobs"),
        sa.UniqueConstraint("id", name="uq_jobs_id"),
        sa.UniqueConstraint(
            "collection", "idempotency_key", name="uq_jobs_collection_idempotency_key"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_collection_key", "jobs", ["collection", "key"])
    op.create_index("ix_jobs_status_due_at", "jobs", ["status", "due_at"])
    op.create_index("ix_jobs_is_announced_status", "jobs", ["is_announced", "status"])
    op.create_index(
        "ix_jobs_webhook_status_webhook_due_at", "jobs", ["webhook_status", "webhook_due_at"]
    )
    op.create_table(
        "job_items",
        sa.Column("job_key", sa.BigInteger, nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("document_key", sa.BigInteger, nullable=False),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("error", sa.Text),
        sa.PrimaryKeyConstraint("job_key", "ordinal", name="pk_job_items"),
        sa.ForeignKeyConstraint(
            ["job_key"], ["jobs.key"], name="fk_job_items_job_key_jobs", ondelete="CASCADE"
        ),
    )
    op.create_index(
        "ix_job_items_job_key_state_ordinal", "job_items", ["job_key", "state", "ordinal"]
    )


def downgrade() -> None:
    """Drop all of them; the extension stays, others may use it."""
    op.drop_table("secrets")
    op.drop_table("job_items")
    op.drop_table("jobs")
    op.drop_table("passages")
    if op.get_bind().dialect.name == "sqlite":
        op.drop_table("deleted_passages")
    op.drop_table("documents")
