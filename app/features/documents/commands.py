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
    rerank: Annotated[
        str | None, typer.Option(help="A model for text-ranking that puts them in order.")
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Find documents that mean what the query means, the best first."""
    body = request_fields(
        query=query,
        top_k=top_k,
        filter=_read_filter(conditions),
        model_name=model,
        rerank=rerank,
    )
    with connected(url, key) as client:
        for result in client.post("/search", body)["results"]:
            if as_json:
                show_json(result)
                continue
            score = result.get("relevance_score", result["score"])
            show(f"{score:.3f}  {result['id']}")
            passage = " ".join(result["passage"]["text"].split())
            show(indent(fill(passage, PASSAGE_WIDTH, max_lines=PASSAGE_LINES), " " * 7))


def _read_filter(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        conditions = json.loads(text)
        # Python also reads what isn't JSON: NaN, lone surrogates, bytes that aren't UTF-8.
        json.dumps(conditions, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        conditions = None
    if not isinstance(conditions, dict):
        raise typer.BadParameter("is no JSON object", param_hint="--filter")
    return conditions


def add_to(cli: typer.Typer) -> None:
    """Add this command to `app`."""
    cli.command(epilog="Example: app search 'a film about the sea' --top-k 3")(search)
