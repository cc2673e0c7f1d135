"""Make the tables of API keys and of predictions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
oldest_program = "0001"

# Spelled out, not taken from tables.py: what a migration did must not change with it.
moment = sa.DateTime(timezone=True)
identity = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "api_keys",
        sa.Column("id", identity, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("prefix", sa.String(64), nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("limit", sa.Text),
        sa.Column("tokens_per_day", sa.BigInteger),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment),
        sa.Column("revoked_at", moment),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("prefix", name="uq_api_keys_prefix"),
    )
    op.create_table(
        "predictions",
        sa.Column("time", moment, nullable=False),
        sa.Column("id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("key_id", sa.BigInteger),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Text),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("latency_ms", sa.Double, nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("score", sa.Double),
        sa.Column("input_hash", sa.Text),
        sa.Column("input", sa.Text),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("completion_tokens", sa.Integer),
        sa.Column("ttft_ms", sa.Double),
        sa.Column("finish_reason", sa.Text),
        sa.PrimaryKeyConstraint("time", "id", name="pk_predictions"),
    )
    for filters in (
        ("key_id",),
        ("model",),
        ("label",),
        ("key_id", "model"),
        ("key_id", "label"),
        ("model", "label"),
        ("key_id", "model", "label"),
        ("request_id",),
    ):
        columns = [*filters, "time", "id"]
        op.create_index(f"ix_predictions_{'_'.join(columns)}", "predictions", columns)


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("predictions")
    op.drop_table("api_keys")
