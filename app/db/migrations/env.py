"""What Alembic runs to apply migrations: on the connection that `app.db.schema` hands over."""

from alembic import context

from app.db.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite alters little in place; Alembic then copies the table.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
