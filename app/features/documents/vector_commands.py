"""The `app db` commands for vectors of models that are no longer used."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from app.console.options import Json, show, show_json, with_database
from app.errors import StartupError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.db.session import Database

DELETED_AT_ONCE = 1_000  # takes PostgreSQL's index well under a second
SCAN_TIMEOUT_S = 60.0  # for a scan of all passages


def list_vectors(*, as_json: Json = False) -> None:
    """List whose vectors are stored: each model, version and edition, and of how many documents."""
    from app.features.documents.passages import PassageRepository

    async def count(database: "Database") -> None:
        spaces = await database.read(
            lambda session: PassageRepository(session).spaces(), timeout_s=SCAN_TIMEOUT_S
        )
        for each in spaces:
            if as_json:
                show_json(asdict(each))
            else:
                show(f"{each.documents:>9} documents {each.passages:>9} passages  {each.space}")

    with_database(count)


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


def add_to(db: typer.Typer) -> None:
    """Add these commands to `app db`."""
    db.command("vectors", epilog="Example: app db vectors --json")(list_vectors)
    db.command("prune", epilog="Example: app db prune minilm@3f1c2a9d")(prune_vectors)
