"""What commands have in common: options, and ways to a running service or its database."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO, TypeVar

import typer

from app.errors import ServiceError, StartupError

if TYPE_CHECKING:
    from app.client import Client
    from app.db.session import Database

Answer = TypeVar("Answer")

Url = Annotated[str, typer.Option("--url", envvar="APP_URL", help="Where the service is.")]
Key = Annotated[
    str | None,
    typer.Option("--key", envvar="APP_KEY", help="An API key; others see options, so use APP_KEY."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Model = Annotated[str | None, typer.Option("--model", help="Its name; default: the task's own.")]
DEFAULT_URL = "http://127.0.0.1:8000"


@contextmanager
def connected(url: str, key: str | None) -> "Iterator[Client]":
    """Give a client; what goes wrong ends the command with a sentence and its exit status."""
    from app.client import Client, ClientError

    for stream in (sys.stdin, sys.stdout):
        # Bytes that are no UTF-8 shouldn't end a command.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # both are files here
    try:
        with Client(url, key) as client:
            yield client
    except ClientError as failure:
        fail(str(failure), failure.exit_status)


def with_database(use: "Callable[[Database], Awaitable[Answer]]") -> Answer:
    """Open the database of DATABASE_URL, migrate it if it is SQLite, and use it.

    Raises:
        StartupError: what can't be done, as one line.

    """
    from app.db.schema import upgrade
    from app.db.session import Database
    from app.settings import load_settings

    settings = load_settings()

    async def run() -> Answer:
        database = Database(settings.sql_url, timeout_s=settings.database_timeout_ms / 1000)
        try:
            if database.dialect == "sqlite":
                await asyncio.to_thread(upgrade, database)
            return await use(database)
        except ServiceError as failure:
            raise StartupError(failure.detail) from None
        finally:
            await database.close()

    return asyncio.run(run())


def fail(said: str, exit_status: int) -> NoReturn:
    """End the command with one line on standard error."""
    tell(said)
    raise typer.Exit(exit_status)


def tell(said: str) -> None:
    """Say what went wrong, on standard error; the service may have said it."""
    show(f"ml-api: error: {said}", file=sys.stderr)


def show_json(value: Any) -> None:  # noqa: ANN401  # what the service answered
    """Print a line of JSON."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def show(text: str, *, end: str = "\n", file: TextIO | None = None) -> None:
    """Print text that came from elsewhere, without what would steer the terminal."""
    safe = "".join(c for c in text if c.isprintable() or c in "\n\t")
    print(safe, end=end, file=file, flush=True)
