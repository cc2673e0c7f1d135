"""The command `app models apply`: give a running service another catalogue."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from app.console.options import DEFAULT_URL, Json, Key, Url, connected, fail, show, show_json
from app.errors import CatalogError, StartupError

EXIT_REFUSED = 1
OF_PACKAGE = (
    "MODELS_FILE names no file of yours: the catalogue of the package isn't written over. Copy it,"
    " and start the service with MODELS_FILE"
)


def apply(
    file: Annotated[Path, typer.Argument(help="The new catalogue.", metavar="FILE")],
    *,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Check a catalogue, put it in the place of MODELS_FILE, and have the service read it.

    The file before is kept beside it, as `.before`; where the service refuses the new one, it is
    put back. Ends with 1 when a model can't be loaded, which serves as before then.
    """
    from app.console.client import EXIT_NO_SERVICE
    from app.settings import PACKAGED_MODELS_FILE, Settings, load_settings

    target = load_settings(Settings).models_file
    if target == PACKAGED_MODELS_FILE:
        raise StartupError(OF_PACKAGE)
    before = _checked(file, target)
    _put(file, target)
    try:
        with connected(url, key) as client:
            applied: list[dict[str, Any]] = client.post("/models/apply", {})["models"]
    except typer.Exit as ended:
        if ended.exit_code != EXIT_NO_SERVICE:  # it may only take longer
            _put(before, target)
        raise
    for one in applied:
        if as_json:
            show_json(one)
        else:
            show(f"{one['model']}: {one['outcome']}" + _reason(one))
    if any(one["outcome"] == "failed" for one in applied):
        fail(f"not all could be loaded; the file before is {before}", EXIT_REFUSED)


def _checked(file: Path, target: Path) -> Path:
    """Check the new file, and keep the one before; return where.

    Raises:
        CatalogError: it can't be read, or needs a restart.

    """
    from app.models.applying import check_change
    from app.models.catalog import read_catalog

    check_change(read_catalog(target), read_catalog(file))
    before = target.with_name(f"{target.name}.before")
    try:
        shutil.copyfile(target, before)
    except OSError as failure:
        raise CatalogError(f"{before}: can't be written: {failure.strerror}") from failure
    return before


def _put(file: Path, target: Path) -> None:
    """Put a copy of a file in the place of another, whole or not at all.

    Raises:
        CatalogError: it can't be written.

    """
    new = target.with_name(f"{target.name}.new")
    try:
        shutil.copyfile(file, new)
        new.replace(target)
    except OSError as failure:
        raise CatalogError(f"{target}: can't be written: {failure.strerror}") from failure


def _reason(applied: dict[str, Any]) -> str:
    return f": {applied['reason']}" if "reason" in applied else ""
