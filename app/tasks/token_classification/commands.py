"""The `app ner` command."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app.console.batches import has_failed, results_of_lines
from app.console.options import (
    DEFAULT_URL,
    STDIN,
    Json,
    Key,
    Model,
    Url,
    connected,
    fail,
    request_fields,
    show,
    show_json,
    standard_input,
)

if TYPE_CHECKING:
    from app.console.client import Client

EXAMPLE = "app ner 'Ada Lovelace lived in London.'; or: app ner - <letters.txt"


def ner(
    text: Annotated[str, typer.Argument(help="A text; - reads one from each line of the input.")],
    *,
    model: Model = None,
    aggregation: Annotated[
        Literal["none", "simple", "first", "average", "max"],
        typer.Option(help="How tokens become entities."),
    ] = "simple",
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Find names, places and other entities in a text, or in each line of the input."""
    asked = {"model_name": model, "aggregation": aggregation}
    with connected(url, key) as client:
        if text == STDIN:
            _find_in_lines(client, standard_input(), asked, as_json=as_json)
            return
        answer = client.post("/ner", request_fields(text=text, **asked))
        if as_json:
            show_json(answer)
        else:
            _show_entities(answer["entities"])


def _find_in_lines(
    client: "Client", lines: Iterable[str], asked: dict[str, str | None], *, as_json: bool
) -> None:
    """Find the entities of lines; a blank line has an error, but doesn't count as failed."""
    from app.console.client import EXIT_INPUT

    def ask(texts: list[str]) -> list[Any]:
        results: list[Any] = client.post("/ner", request_fields(texts=texts, **asked))["results"]
        return results

    failed = 0
    for text, result in results_of_lines(lines, ask):
        failed += has_failed(text, result)
        if as_json:
            show_json({"text": text, **result})
        elif error := result.get("error"):
            show(f"error\t{error['code']}\t{text}")
        else:
            _show_entities(result["entities"])
    if failed:
        fail(f"{failed} of the lines could not be done", EXIT_INPUT)


def _show_entities(entities: Iterable[dict[str, Any]]) -> None:
    for entity in entities:
        place = f"{entity['start']}-{entity['end']}"
        show(f"{entity['label']}\t{entity['score']:.4f}\t{place}\t{entity['text']}")


def add_to(cli: typer.Typer) -> None:
    """Give the `app` command this command."""
    cli.command(epilog=f"Example: {EXAMPLE}")(ner)
