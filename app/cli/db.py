"""The `app db` commands that every service has: migrations."""

import typer

from app.console.options import Json, database_sentence, keep_log_quiet, show_json
from app.errors import ServiceError, StartupError

cli = typer.Typer(no_args_is_help=True, help="Look after the database.")


@cli.command("upgrade", epilog="Example: DATABASE_URL=postgresql://… app db upgrade")
def upgrade_database(*, as_json: Json = False) -> None:
    """Apply the migrations that are missing to DATABASE_URL."""
    from app.db.schema import upgrade
    from app.db.session import Database
    from app.settings import Settings, load_settings

    keep_log_quiet()
    settings = load_settings(Settings)
    try:
        upgrade(Database(settings.sql_url))
    except ServiceError as failure:
        raise StartupError(database_sentence(failure)) from None
    if as_json:
        show_json({"up_to_date": True})
    else:
        print("the database is up to date")
