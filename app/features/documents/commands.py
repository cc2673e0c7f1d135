"""The `app search` command."""

import json
from textwrap import fill, indent
from typing import Annotated, Any

import typer

from app.console.options import (
    DEFAULT_URL,
    Json,
    Key,
    Model,
    Url,
    connected,
    request_fields,
    show,
    show_json,
)

PASSAGE_WIDTH = 90
PASSAGE_LINES = 3


def search(  # noqa: PLR0913  # each is an option
    query: Annotated[str, typer.Argument(help="What to look for, in words.")],
    *,
    top_k: Annotated[int, typer.Option(min=1, max=100, help="So many documents at most.")] = 5,
    conditions: Annotated[
        str | None, typer.Option("--filter", help='On metadata, as JSON: \'{"lang": "en"}\'.')
    ] = None,
    model: Model = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Find documents that mean what the query means, the best first."""
    asked = request_fields(
        query=query, top_k=top_k, filter=_read_filter(conditions), model_name=model
    )
    with connected(url, key) as client:
        for found in client.post("/search", asked)["results"]:
            if as_json:
                show_json(found)
                continue
            show(f"{found['score']:.3f}  {found['id']}")
            passage = " ".join(found["passage"]["text"].split())
            show(indent(fill(passage, PASSAGE_WIDTH, max_lines=PASSAGE_LINES), " " * 7))


def _read_filter(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
        # Python reads more than JSON is: NaN, halves of characters, bytes that are no UTF-8.
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise typer.BadParameter("is no JSON object", param_hint="--filter")
    return found


def add_to(cli: typer.Typer) -> None:
    """Give the `app` command this command."""
    cli.command(epilog="Example: app search 'a film about the sea' --top-k 3")(search)
