"""The `app` command."""

import logging
import os
import sys
from typing import Annotated, NoReturn

import typer

from app.errors import StartupError

cli = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
models_cli = typer.Typer(no_args_is_help=True, help="Look at the models of the catalogue.")
cli.add_typer(models_cli, name="models")

EXIT_OK = 0
EXIT_STARTUP_FAILED = 1


@cli.callback()
def describe() -> None:
    """Serve machine-learning models over HTTP."""


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address; default: HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port, 0 for a free one; default: PORT.")] = None,
) -> None:
    """Start the service."""
    from app.observability.logs import configure
    from app.server import serve as run_server
    from app.settings import load_settings

    given = {
        name: value for name, value in {"host": host, "port": port}.items() if value is not None
    }
    settings = load_settings(**given)
    configure(
        log_format=settings.log_format, level=settings.log_level, log_inputs=settings.log_inputs
    )
    run_server(settings)
    leave(EXIT_OK)


@models_cli.command("list")
def list_models() -> None:
    """List the models of the catalogue."""
    from app.models.catalog import read_catalog
    from app.settings import load_settings

    catalog = read_catalog(load_settings().models_file)
    for spec in catalog.specs:
        default = "default" if catalog.default(spec.task) == spec.name else ""
        print(f"{spec.name:20} {spec.task:20} {spec.engine:10} {spec.source or '-':50} {default}")


def leave(status: int) -> NoReturn:
    """End the process now, without waiting for a thread that is still loading a model."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """Run the command; what stops it from starting is one readable line."""
    try:
        cli()
    except StartupError as failure:
        print(f"ml-api: error: {failure}", file=sys.stderr)
        leave(EXIT_STARTUP_FAILED)
