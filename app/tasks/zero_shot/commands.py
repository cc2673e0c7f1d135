"""The `app zero-shot` command."""

from typing import Annotated

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
    warn,
)


def zero_shot(  # noqa: PLR0913  # each is an option
    text: Annotated[str, typer.Argument(help="The text.")],
    labels: Annotated[list[str], typer.Argument(help="The labels to choose from, in words.")],
    *,
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="Several labels may be right.")
    ] = False,
    template: Annotated[
        str | None, typer.Option(help='Makes a sentence of a label: "This is about {}."')
    ] = None,
    model: Model = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Classify a text by labels of your own."""
    body = request_fields(
        text=text,
        labels=labels,
        multi_label=multi_label or None,
        hypothesis_template=template,
        model_name=model,
    )
    with connected(url, key) as client:
        answer = client.post("/zero-shot", body)
    if as_json:
        show_json(answer)
        return
    width = max(len(label) for label in labels)
    for one in answer["scores"]:
        show(f"{one['label']:{width}} {one['score']:7.1%}")
    if answer["truncated"]:
        warn("only the beginning was read: the text is longer than the model's window")


def add_to(cli: typer.Typer) -> None:
    """Give the `app` command this command."""
    cli.command(
        "zero-shot", epilog="Example: app zero-shot 'The screen stays black.' hardware billing"
    )(zero_shot)
