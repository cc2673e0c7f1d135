"""The `app db` commands: migrations, and the vectors of models that are no longer used."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from app.console.options import (
    Json,
    database_sentence,
    keep_log_quiet,
    show,
    show_json,
    with_database,
)
from app.errors import ServiceError, StartupError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.db.session import Database

cli = typer.Typer(no_args_is_help=True, help="Look after the database.")

DELETED_AT_ONCE = 1_000  # which PostgreSQL's index takes well under a second for
SCAN_TIMEOUT_S = 60.0  # of a look at all passages


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


@cli.command("vectors", epilog="Example: app db vectors --json")
def list_vectors(*, as_json: Json = False) -> None:
    """List whose vectors are stored: each model, version and edition, and of how many documents."""
    from app.features.documents.passages import PassageRepository

    async def count(database: "Database") -> None:
        found = await database.read(
            lambda session: PassageRepository(session).spaces(), timeout_s=SCAN_TIMEOUT_S
        )
        for each in found:
            if as_json:
                show_json(asdict(each))
            else:
                show(f"{each.documents:>9} documents {each.passages:>9} passages  {each.space}")

    with_database(count)


@cli.command("prune", epilog="Example: app db prune minilm@3f1c2a9d")
def prune_vectors(
    space: Annotated[
        str, typer.Argument(help="A model, version and edition, as `app db vectors` says.")
    ],
    *,
    as_json: Json = False,
) -> None:
    """Delete the vectors of a model that is no longer used; documents stay."""
    from app.features.documents.passages import PassageRepository

    def delete(session: "Session", after: int) -> "Sequence[int]":
        return PassageRepository(session).delete_space(space, after=after, limit=DELETED_AT_ONCE)

    async def prune(database: "Database") -> int:
        deleted, after = 0, 0
        while ids := await database.run(partial(delete, after=after), timeout_s=SCAN_TIMEOUT_S):
            deleted, after = deleted + len(ids), ids[-1]
        return deleted

    deleted = with_database(prune)
    if not deleted:
        raise StartupError(
            f"there are no vectors of {space!r}; `app db vectors` lists what there is"
        )
    if as_json:
        show_json({"deleted": deleted})
    else:
        print(f"deleted {deleted} passages")
