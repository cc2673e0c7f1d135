"""The `app doctor` command: what is there, what is missing, what to do about it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from app.console.options import Json, keep_log_quiet, show_json
from app.errors import SettingsError

if TYPE_CHECKING:
    from app.core.finding import Finding

EXIT_FAILED = 1
LOAD_TIMEOUT_S = 60.0
LoadTimeout = Annotated[
    float,
    typer.Option(min=0, help="Seconds for which each model is tried to load; 0: none is tried."),
]
MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


def doctor(*, load_timeout: LoadTimeout = LOAD_TIMEOUT_S, as_json: Json = False) -> None:
    """Look at Python, memory, disk, port, models, SQL, Redis, clocks and settings.

    Ends with 1 when something keeps the service from working.
    """
    keep_log_quiet()  # findings say it all
    findings = []
    for finding in _look(load_timeout):
        findings.append(finding)
        if as_json:
            show_json(finding.as_dict())
        else:
            _show(finding)
    failed = sum(finding.level == "fail" for finding in findings)
    doubts = sum(finding.level == "warn" for finding in findings)
    if not as_json:
        typer.echo(f"\n{len(findings)} checks, {failed} failed, {doubts} to look at")
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _look(load_timeout_s: float) -> "Iterator[Finding]":
    from app.core.finding import bad
    from app.doctor import machine, parts, settings
    from app.main import installed, load_settings
    from app.runtime.composition import check, choose

    try:
        read = load_settings()
        chosen = choose(installed(), read)
        check(chosen, read)
    except SettingsError as failure:
        yield bad("settings", str(failure), "docs/settings.md has every setting and its values.")
        return
    yield from machine.look(read)
    yield from parts.look(read, chosen, load_timeout_s=load_timeout_s)
    yield from settings.look(read, installed(), chosen)
    for feature in chosen.features:
        yield from feature.findings(read)


def _show(finding: "Finding") -> None:
    mark, color = MARKS[finding.level]
    typer.secho(mark, fg=color, nl=False)
    typer.echo(f" {finding.place}: {finding.said}")
    if finding.advice:
        typer.echo(f"    {finding.advice}")
