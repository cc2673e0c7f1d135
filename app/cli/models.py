"""The commands `app models check` and `app models new`: a model before it is served."""

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.applying import apply
from app.console.options import Json, keep_log_quiet, show, show_json

EXIT_REFUSED = 1
MAX_SHOWN_CHARS = 300
TIMEOUT_S = 120.0

Place = Annotated[
    str,
    typer.Argument(help="A file, a folder, model.py:Class, or a models.toml.", metavar="PATH"),
]
Item = Annotated[
    str | None,
    typer.Option(help="Of the first call: JSON, or a text where the model takes texts."),
]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds for each model.")]


class Kind(StrEnum):
    """What `app models new` writes."""

    SKLEARN = "sklearn"
    TORCH = "torch"
    ONNX = "onnx"


def check(
    path: Place,
    *,
    item: Item = None,
    timeout: Timeout = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Say what a model is for, load it, and call it once; nothing is written.

    Ends with 1 when a model is refused, or its first call fails.
    """
    from app.doctor.guessing import alternative, guess
    from app.doctor.model_check import check_model

    keep_log_quiet()
    catalog = guess(Path(path))
    is_good = True
    for spec in catalog.specs:
        report = check_model(spec, catalog.folder, item=item, timeout_s=timeout)
        if instead := alternative(Path(path), spec):
            report["alternative"] = instead
        is_good = is_good and "refused" not in report and "failure" not in report
        if as_json:
            show_json(report)
        else:
            _show(report)
    if not is_good:
        raise typer.Exit(EXIT_REFUSED)


def _show(report: Mapping[str, Any]) -> None:
    """Print a report for people."""
    if refused := report.get("refused"):
        show(f"✗ {report['name']}: {report['task']} on {report['engine']} is refused")
        show(f"  {refused}")
        _show_alternative(report)
        return
    where = f"{report['engine']} on {report['device']}"
    show(f"✓ {report['name']}: {report['task']}, {where}, version {report['version']}")
    note = f"; {report['note']}" if "note" in report else ""
    show(f"  loaded in {report['load_s']} s, {report['memory_mib']} MiB of memory{note}")
    if "item" in report:
        show(f"  called with  {_json(report['item'])}")
        if "failure" in report:
            show(f"  ✗ it failed: {report['failure']}")
            show("  --item gives it another one")
        else:
            show(f"  its answer   {_json(report['answer'])}, after {report['call_ms']} ms")
    show("  its entry:")
    show("".join(f"    {line}\n" for line in report["entry"].splitlines()).rstrip())
    _show_alternative(report)


def _show_alternative(report: Mapping[str, Any]) -> None:
    """Say what the model may be for instead, if its folder doesn't say what it is for."""
    if instead := report.get("alternative"):
        show(f"  its labels tell the task: {instead}")


def _json(value: Any) -> str:  # noqa: ANN401  # any JSON
    """Return JSON that fits on a line or two: an item may be an image."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def new(
    name: Annotated[str, typer.Argument(help="The model's name, and the folder that is made.")],
    *,
    kind: Annotated[Kind, typer.Option(help="What to start from.")],
    folder: Annotated[Path | None, typer.Option(help="Another folder, new or empty.")] = None,
    as_json: Json = False,
) -> None:
    """Write a model to start from, with its models.toml: it runs as it is."""
    from app.cli.starters.writing import NEEDS, write

    target = folder or Path(name)
    files = write(name, kind.value, target)
    if as_json:
        show_json({"name": name, "folder": str(target), "files": [str(file) for file in files]})
        return
    for file in files:
        show(str(file))
    if needed := NEEDS[kind.value]:
        show(f"\nIt needs {needed}")
    show(f"\nTry it:   app models check {target}")
    show(f"Serve it: MODELS_FILE={target / 'models.toml'} app serve")


def add_to(cli: typer.Typer) -> None:
    """Add them to `app models`."""
    cli.command(epilog="Example: app models apply ./models.toml")(apply)
    cli.command(epilog="Example: app models check ./churn.onnx")(check)
    cli.command(epilog="Example: app models new prices --kind torch")(new)
