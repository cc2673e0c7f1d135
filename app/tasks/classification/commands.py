"""The `app predict` command."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

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
    warn,
)

if TYPE_CHECKING:
    from app.console.client import Client

EXAMPLE = "app predict 'Great value.'; or: app predict - <reviews.txt"


def predict(  # noqa: PLR0913  # each is an option
    text: Annotated[str, typer.Argument(help="A text; - reads one from each line of the input.")],
    *,
    pair: Annotated[
        str | None, typer.Option(help="A second text, for models that read two together.")
    ] = None,
    model: Model = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Show so many labels.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Classify a text, or each line of the input."""
    if text == STDIN and top_k is not None:
        raise typer.BadParameter("goes with a single text", param_hint="--top-k")
    if text == STDIN and pair is not None:
        raise typer.BadParameter("goes with a single text", param_hint="--pair")
    with connected(url, key) as client:
        if text == STDIN:
            _predict_lines(client, standard_input(), model=model, as_json=as_json)
        else:
            body = request_fields(text=text, text_pair=pair, model_name=model, top_k=top_k)
            _show_prediction(client.post("/predict", body), as_json=as_json)


def _show_prediction(prediction: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(prediction)
        return
    labels = prediction.get("scores") or [prediction]
    width = max(len(label["label"]) for label in labels)
    style = "10.4f" if "problem_type" in prediction else "7.1%"  # it is only there for a regression
    for label in labels:
        show(f"{label['label']:{width}} {label['score']:{style}}")
    if prediction.get("truncated"):
        warn("only the beginning was read: the text is longer than the model's window")


def _predict_lines(
    client: "Client", lines: Iterable[str], *, model: str | None, as_json: bool
) -> None:
    """Classify lines, and print an answer or an error for each.

    A blank line has the error of an empty text, but doesn't count as failed: files often have some.
    """
    from app.console.client import EXIT_INPUT

    def ask(texts: list[str]) -> list[Any]:
        body = request_fields(texts=texts, model_name=model)
        results: list[Any] = client.post("/predict-batch", body)["results"]
        return results

    failed = cut = 0
    for text, result in results_of_lines(lines, ask):
        failed += has_failed(text, result)
        cut += bool(result.get("truncated"))
        _show_line(text, result, as_json=as_json)
    if cut:
        warn(f"of {cut} lines only the beginning was read: they are longer than the model's window")
    if failed:
        fail(f"{failed} of the lines could not be classified", EXIT_INPUT)


def _show_line(text: str, result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json({"text": text, **result})
    elif error := result.get("error"):
        show(f"error\t{error['code']}\t{text}")
    else:
        show(f"{result['label']}\t{result['score']:.4f}\t{text}")


def add_to(cli: typer.Typer) -> None:
    """Give the `app` command this command."""
    cli.command(epilog=f"Example: {EXAMPLE}")(predict)
