"""What commands have in common: options, and ways to a running service or its database."""

import asyncio
import json
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO, TypeVar

import typer

from app.errors import DatabaseUnavailableError, ServiceError, StartupError

if TYPE_CHECKING:
    from app.console.client import Client
    from app.db.session import Database
    from app.settings import Settings

Answer = TypeVar("Answer")

Url = Annotated[str, typer.Option("--url", envvar="APP_URL", help="Where the service is.")]
Key = Annotated[
    str | None,
    typer.Option("--key", envvar="APP_KEY", help="An API key; others see options, so use APP_KEY."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Model = Annotated[str | None, typer.Option("--model", help="Its name; default: the task's own.")]
DEFAULT_URL = "http://127.0.0.1:8000"
STDIN = "-"  # an argument that stands for the standard input


# Control characters but for newline and tab, halves of characters, and the marks that turn the
# direction of what follows them. All else is text, joiners and blanks of any width too.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


@contextmanager
def connected(url: str, key: str | None) -> "Iterator[Client]":
    """Give a client; what goes wrong ends the command with a sentence and its exit status."""
    from app.console.client import Client, ClientError

    try:
        with Client(url, key) as client:
            yield client
    except ClientError as failure:
        fail(str(failure), failure.exit_status)


def standard_input() -> TextIO:
    """Return the standard input, which the caller may have closed."""
    from app.console.client import EXIT_USAGE

    if sys.stdin is None:
        fail("standard input is closed: give a text", EXIT_USAGE)
    return sys.stdin


def with_database(
    use: "Callable[[Database], Awaitable[Answer]]", *, may_create: bool = False
) -> Answer:
    """Open the database of DATABASE_URL, migrate it if it is SQLite, and use it.

    Args:
        use: given the database.
        may_create: whether a SQLite file that isn't there is made.

    Raises:
        StartupError: what can't be done, as one line.

    """
    from app.db.failures import StatementError
    from app.db.schema import upgrade
    from app.db.session import Database
    from app.settings import Settings, load_settings

    keep_log_quiet()
    settings = load_settings(Settings)
    if not may_create:
        _refuse_without_file(settings)

    async def run() -> Answer:
        database = Database(settings.sql_url, timeout_s=settings.database_timeout_ms / 1000)
        try:
            if database.dialect == "sqlite":
                await asyncio.to_thread(upgrade, database)
            return await use(database)
        except ServiceError as failure:
            raise StartupError(database_sentence(failure)) from None
        except StatementError as failure:
            raise StartupError(f"the database refuses what it is asked: {failure}") from None
        except UnicodeEncodeError:
            raise StartupError("an argument is not UTF-8, and can't be in the database") from None
        finally:
            await database.close()

    return asyncio.run(run())


def database_sentence(failure: ServiceError) -> str:
    """Return the message for operators; the error's own detail is for clients of the service."""
    if isinstance(failure, DatabaseUnavailableError):
        return f"the database: {failure.advice}; `app doctor` looks at more"
    return failure.detail


def keep_log_quiet() -> None:
    """Print no bare names of log events: a command prints its own errors."""
    logging.getLogger("app").addHandler(logging.NullHandler())


def _refuse_without_file(settings: "Settings") -> None:
    """Don't make an empty database where an existing one is expected."""
    from app.db.engine import parse_url

    url = parse_url(settings.sql_url)
    if url.drivername == "sqlite" and not Path(str(url.database)).exists():
        raise StartupError(
            f"there is no database at {url.database}: name it with DATABASE_URL or DATA_DIR;"
            " `app db upgrade` makes one"
        )


def group(cli: typer.Typer, name: str) -> typer.Typer:
    """Return the commands that `app` has under this name."""
    return next(
        group_info.typer_instance
        for group_info in cli.registered_groups
        if group_info.name == name and group_info.typer_instance is not None
    )


def fail(message: str, exit_status: int) -> NoReturn:
    """End the command with one line on standard error."""
    print_error(message)
    raise typer.Exit(exit_status)


def print_error(message: str) -> None:
    """Print an error on standard error; its text may come from the service."""
    if sys.stderr is not None:  # or print would take standard output instead
        show(f"ml-api: error: {message}", file=sys.stderr)


def warn(message: str) -> None:
    """Print a warning about an answer for a person; a script finds it in the JSON."""
    if sys.stderr is not None and sys.stderr.isatty():
        show(f"ml-api: warning: {message}", file=sys.stderr)


def show_json(value: Any) -> None:  # noqa: ANN401  # what the service answered
    """Print a line of JSON."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def show(text: str, *, end: str = "\n", file: TextIO | None = None) -> None:
    """Print text that came from elsewhere, without what would steer the terminal."""
    print(STEERING.sub("", text), end=end, file=file, flush=True)


def request_fields(**values: object) -> dict[str, Any]:
    """Return the fields of a request that are given."""
    return {name: value for name, value in values.items() if value is not None}
