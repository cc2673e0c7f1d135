"""The `app rerank` command."""

from typing import Annotated

import typer

from app.console.options import (
    DEFAULT_URL,
    STDIN,
    Json,
    Key,
    Model,
    Url,
    connected,
    request_fields,
    show,
    show_json,
    standard_input,
    warn,
)


def rerank(  # noqa: PLR0913  # each is an option
    query: Annotated[str, typer.Argument(help="What the texts are to answer.")],
    texts: Annotated[
        list[str], typer.Argument(help="The texts; - reads one from each line of the input.")
    ],
    *,
    top_n: Annotated[int | None, typer.Option(min=1, help="Show the best so many.")] = None,
    model: Model = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Put texts in the order in which they answer a query, the best first."""
    if texts == [STDIN]:
        texts = [line.strip() for line in standard_input() if line.strip()]
    body = request_fields(query=query, documents=texts, top_n=top_n, model_name=model)
    with connected(url, key) as client:
        answer = client.post("/rerank", body)
    for result in answer["results"]:
        if as_json:
            show_json({**result, "text": texts[result["index"]]})
        else:
            show(f"{result['relevance_score']:8.4f}  {texts[result['index']]}")
    if cut := answer["truncated"]:
        warn(f"of {len(cut)} texts not all was read: with the query they are too long")


def add_to(cli: typer.Typer) -> None:
    """Give the `app` command this command."""
    cli.command(epilog="Example: app rerank 'a film about the sea' - <titles.txt")(rerank)
