"""The `app` command, put together."""

import signal
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from app.cli import db, doctor, models
from app.cli.bench import bench
from app.console.ending import end_process, leave, print_if_read, write_last_lines
from app.console.options import Json, fail, print_error, show_json
from app.errors import StartupError
from app.main import installed

cli = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
models_cli = typer.Typer(no_args_is_help=True, help="Look at the models of the catalogue.")
cli.add_typer(models_cli, name="models")
models.add_to(models_cli)
cli.command(epilog="Example: app doctor --json")(doctor.doctor)
cli.command(epilog="Example: app bench http://127.0.0.1:8000/predict --connections 8,64")(bench)
cli.add_typer(db.cli, name="db")
for task in installed().tasks:
    task.add_commands(cli)
for feature in installed().usable:
    feature.add_commands(cli)

EXIT_OK = 0
EXIT_STARTUP_FAILED = 1
EXIT_UNFINISHED = 70  # EX_SOFTWARE of sysexits.h
SILENT = ("serve", "worker")  # whose answers are not on standard output


@cli.callback()
def prepare(context: typer.Context) -> None:
    """Serve machine-learning models over HTTP."""
    if sys.stdout is None and context.invoked_subcommand not in SILENT:
        fail("standard output is closed", EXIT_STARTUP_FAILED)
    for stream in (sys.stdin, sys.stdout):
        # Bytes that are no UTF-8, or characters that the terminal lacks, shouldn't end a command.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


@cli.command(epilog="Example: app serve --host 0.0.0.0 --port 8080")
def serve(
    host: Annotated[str | None, typer.Option(help="Address; default: HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port, 0 for a free one; default: PORT.")] = None,
    front_ends: Annotated[
        int | None, typer.Option(help="Service processes on the address; default: FRONT_ENDS.")
    ] = None,
    *,
    reload_models: Annotated[
        bool | None,
        typer.Option(
            "--reload-models", help="In development: load Python classes anew when they change."
        ),
    ] = None,
    # Set by the first process of several for the others.
    front_end: Annotated[str | None, typer.Option(hidden=True)] = None,
    engine_process: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Start the service."""
    from app.core.logs import configure
    from app.main import load_settings
    from app.server.engine_process import serve_engines
    from app.server.front_end import Place
    from app.server.serve import serve as run_server
    from app.server.serve import serve_as

    given = {
        "host": host,
        "port": port,
        "front_ends": front_ends,
        "reload_models": reload_models,
    }
    overrides = {name: value for name, value in given.items() if value is not None}
    settings = load_settings(**overrides)
    configure(
        log_format=settings.log_format,
        level=settings.log_level,
        log_inputs=settings.log_inputs,
        bound=settings.log_bound,
    )
    if front_end is not None:
        end_process(serve_as(Place.parse(front_end), settings, on_overdue=leave_unfinished))
    if engine_process is not None:
        end_process(serve_engines(engine_process, settings))
    end_process(run_server(settings, on_overdue=leave_unfinished))


@models_cli.command("list", epilog="Example: app models list --json")
def list_models(*, as_json: Json = False) -> None:
    """List the models of the catalogue."""
    from app.models.catalog import read_catalog
    from app.settings import Settings, load_settings

    catalog = read_catalog(load_settings(Settings).models_file)
    for spec in catalog.specs:
        is_default = catalog.default(spec.task) == spec.name
        if as_json:
            row = {"name": spec.name, "task": spec.task, "engine": spec.engine}
            show_json({**row, "source": spec.source, "default": is_default})
            continue
        default = "default" if is_default else ""
        print(f"{spec.name:20} {spec.task:20} {spec.engine:10} {spec.source or '-':50} {default}")


@models_cli.command("export", epilog="Example: app models export sentiment ./sentiment")
def export_model(
    name: Annotated[str, typer.Argument(help="The model's name in the catalogue.")],
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    *,
    as_json: Json = False,
) -> None:
    """Write a model, its adapter merged, as a folder that transformers can load."""
    from app.models.catalog import read_catalog
    from app.models.export import export
    from app.models.sources import Sources
    from app.settings import Settings, load_settings

    settings = load_settings(Settings)
    sources = Sources(settings.models_dir, hub_endpoint=settings.hf_endpoint)
    catalog = read_catalog(settings.models_file)
    export(catalog, name, folder, sources=sources, threads=settings.core_count)
    if as_json:
        show_json({"name": name, "folder": str(folder)})
    else:
        print(folder)


@models_cli.command("bake", epilog="Example: app models bake /srv/models")
def bake_models(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    *,
    as_json: Json = False,
) -> None:
    """Write all models, converted, with a catalogue: a folder that serves without torch."""
    from app.models.bake import bake
    from app.models.catalog import read_catalog
    from app.models.sources import Sources
    from app.settings import Settings, load_settings

    settings = load_settings(Settings)
    sources = Sources(settings.models_dir, hub_endpoint=settings.hf_endpoint)
    bake(read_catalog(settings.models_file), folder, sources=sources, cores=settings.core_count)
    if as_json:
        show_json({"models_file": str(folder / "models.toml")})
    else:
        print(folder / "models.toml")


def leave_unfinished() -> NoReturn:
    """End a process that was told to end and can't: something in it hangs, maybe with a lock."""
    write_last_lines()
    print_if_read("ml-api: error: the end took too long, and was cut short\n")
    leave(EXIT_UNFINISHED)


def leave_on_signals() -> None:
    """End well on a signal that comes before the command has handlers of its own, or after.

    The first process of a container is not ended by a signal that it has no handler for.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave(EXIT_OK))


def run_command(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status; what stops it from starting is one readable line.

    `serve` and `worker` end the process when they have started.
    """
    try:
        cli(arguments, prog_name="app")
    except StartupError as failure:
        write_last_lines()  # so that the error is the last line
        print_error(str(failure))
        return EXIT_STARTUP_FAILED
    except SystemExit as ended:
        # The way in which every other command ends.
        return ended.code if isinstance(ended.code, int) else EXIT_STARTUP_FAILED
    return EXIT_OK


def main() -> None:
    """Run the command of this process."""
    arguments = sys.argv[1:]
    if arguments[:1] in (["serve"], ["worker"]):
        leave_on_signals()
    end_process(run_command(arguments))
