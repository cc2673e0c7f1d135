"""The `app call` command."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.console.batches import MAX_BATCH_BYTES, batches, json_size
from app.console.options import (
    DEFAULT_URL,
    STDIN,
    Json,
    Key,
    Url,
    connected,
    fail,
    show,
    show_json,
    standard_input,
)

if TYPE_CHECKING:
    from app.console.client import Client

EXAMPLE = "app call iris '[6.3, 3.3, 6.0, 2.5]'; or: app call iris - <flowers.ndjson"
# As the service's errors; these aren't even sent.
NO_JSON = {"error": {"code": "malformed_json", "detail": "no JSON; it wasn't sent"}}
TOO_LONG = {
    "error": {"code": "body_too_large", "detail": f"over {MAX_BATCH_BYTES} bytes; it wasn't sent"}
}


def call(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    item: Annotated[str, typer.Argument(help="JSON; - reads one item from each line.")],
    *,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Call a Python model with an item, or with each line of the input."""
    from app.console.client import EXIT_INPUT

    lines = (line.strip() for line in standard_input()) if item == STDIN else iter((item,))
    with connected(url, key) as client:
        failed = _call(client, name, (line for line in lines if line), as_json=as_json)
    if failed:
        fail(f"{failed} of the items have no answer", EXIT_INPUT)


def _call(client: "Client", name: str, lines: Iterable[str], *, as_json: bool) -> int:
    """Print an answer or an error for each line; return how many errors."""
    failed = 0
    for batch in batches(lines, size_of=lambda line: len(line.encode(errors="replace"))):
        read = [_read(line) for line in batch]
        items = [value for value, error in read if error is None]
        answered = client.post(f"/predict-batch/{name}", {"items": items}) if items else {}
        results = iter(answered.get("results", ()))
        for _, error in read:
            result = error or next(results)
            failed += "error" in result
            _show(result, as_json=as_json)
    return failed


def _read(line: str) -> tuple[Any, dict[str, Any] | None]:
    """Return an item, or the error in its place."""
    try:
        value = json.loads(line, parse_constant=_refuse)
    except ValueError:
        return None, NO_JSON
    return (None, TOO_LONG) if json_size(value) > MAX_BATCH_BYTES else (value, None)


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN is no JSON


def _show(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(result)
    elif error := result.get("error"):
        fields = "".join(
            f"\t{'.'.join(map(str, field['loc'][3:]))}: {field['msg']}"
            for field in error.get("errors", ())
        )
        show(f"error\t{error['code']}{fields}")
    else:
        show_json(result["answer"])


def add_to(cli: typer.Typer) -> None:
    """Give the `app` command this command."""
    cli.command(epilog=f"Example: {EXAMPLE}")(call)
