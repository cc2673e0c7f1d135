"""Commands that use a running service: `app predict`, `app chat`, `app search`."""

import json
from collections.abc import Iterable, Iterator
from textwrap import fill, indent
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.console.options import (
    DEFAULT_URL,
    Json,
    Key,
    Model,
    Url,
    connected,
    fail,
    show,
    show_json,
    standard_input,
    tell,
    warn,
)

if TYPE_CHECKING:
    from app.console.client import Client

BATCH = 256  # texts that /predict-batch takes
MAX_BATCH_BYTES = 400_000  # well under the service's default bound of a body
STDIN = "-"
# What the service says of a text that is too long for its model, here for one that isn't sent.
TOO_LONG = {
    "error": {"code": "text_too_long", "detail": f"over {MAX_BATCH_BYTES} bytes; it wasn't sent"}
}
PROMPT = "you> "
PASSAGE_WIDTH = 90
PASSAGE_LINES = 3


EXAMPLES = {
    "predict": "app predict 'Great value.'; or: app predict - <reviews.txt",
    "chat": "app chat --system 'You are a poet.'; or: app chat 'What is 2 + 2?'",
    "search": "app search 'a film about the sea' --top-k 3",
}


def predict(
    text: Annotated[str, typer.Argument(help="A text; - reads one from each line of the input.")],
    *,
    model: Model = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Show so many labels.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Classify a text, or each line of the input."""
    if text == STDIN and top_k is not None:
        raise typer.BadParameter("goes with a single text", param_hint="--top-k")
    with connected(url, key) as client:
        if text == STDIN:
            _predict_lines(client, standard_input(), model=model, as_json=as_json)
        else:
            asked = _given(text=text, model_name=model, top_k=top_k)
            _show_prediction(client.post("/predict", asked), as_json=as_json)


def _show_prediction(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    labels = found.get("scores") or [found]
    width = max(len(label["label"]) for label in labels)
    style = "10.4f" if "problem_type" in found else "7.1%"  # it is only there for a regression
    for label in labels:
        show(f"{label['label']:{width}} {label['score']:{style}}")
    if found.get("truncated"):
        warn("only the beginning was read: the text is longer than the model's window")


def _predict_lines(
    client: "Client", lines: Iterable[str], *, model: str | None, as_json: bool
) -> None:
    """Classify lines: each has an answer, or its error, in its place.

    A blank line has the error of an empty text, and isn't counted as one that failed: files have
    them.
    """
    from app.console.client import EXIT_INPUT

    failed = cut = 0
    for batch in _batches(line.strip() for line in lines):
        if _size(batch[0]) > MAX_BATCH_BYTES:
            results = [TOO_LONG]
        else:
            asked = _given(texts=batch, model_name=model)
            results = client.post("/predict-batch", asked)["results"]
        for text, result in zip(batch, results, strict=True):
            failed += "error" in result and text != ""
            cut += bool(result.get("truncated"))
            _show_line(text, result, as_json=as_json)
    if cut:
        warn(f"of {cut} lines only the beginning was read: they are longer than the model's window")
    if failed:
        fail(f"{failed} of the lines could not be classified", EXIT_INPUT)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Give texts in as many as one request takes; one that is too long for any is alone."""
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and (len(batch) == BATCH or size + _size(text) > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += _size(text)
    if batch:
        yield batch


def _size(text: str) -> int:
    """Return the bytes that a text takes in a list of JSON."""
    return len(json.dumps(text, ensure_ascii=False).encode(errors="replace")) + 1


def _show_line(text: str, result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json({"text": text, **result})
    elif error := result.get("error"):
        show(f"error\t{error['code']}\t{text}")
    else:
        show(f"{result['label']}\t{result['score']:.4f}\t{text}")


def chat(  # noqa: PLR0913  # each is an option
    text: Annotated[
        str | None, typer.Argument(help="Ask this and end; - takes all of the input.")
    ] = None,
    *,
    model: Model = None,
    system: Annotated[str | None, typer.Option(help="What the model is to be.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of each answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2)] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Talk with a model: a line is a question, Ctrl-C stops an answer, Ctrl-D ends."""
    options = _given(model_name=model, max_tokens=max_tokens, temperature=temperature)
    with connected(url, key) as client:
        conversation = _Conversation(client, options, system=system, as_json=as_json)
        if text is not None:
            conversation.ask(standard_input().read() if text == STDIN else text)
        elif standard_input().isatty():
            _converse(conversation)
        else:
            for line in standard_input():
                if line.strip():
                    conversation.ask(line.strip())


def _converse(conversation: "_Conversation") -> None:
    """Ask what a person types; an error ends its answer, not the conversation."""
    import readline  # noqa: F401  # input() edits lines with it

    from app.console.client import ClientError

    while True:
        try:
            line = input(PROMPT)
        except EOFError:
            print()
            return
        if not line.strip():
            continue
        try:
            conversation.ask(line)
        except ClientError as failure:
            tell(str(failure))
        except KeyboardInterrupt:
            print(" (stopped)")


class _Conversation:
    """What was said so far, and what is asked next."""

    def __init__(
        self, client: "Client", options: dict[str, Any], *, system: str | None, as_json: bool
    ) -> None:
        self._client = client
        self._options = options
        self._as_json = as_json
        self._messages = [{"role": "system", "content": system}] if system else []

    def ask(self, question: str) -> None:
        """Print the answer as it comes; both are remembered, as far as the answer got."""
        messages = [*self._messages, {"role": "user", "content": question}]
        said: list[str] = []
        last: dict[str, Any] = {}
        try:
            for last in self._tokens(messages):
                said.append(last["token"])
                if not self._as_json:
                    show(last["token"], end="")
        finally:
            if said:
                answer = {"role": "assistant", "content": "".join(said)}
                self._messages = [*messages, answer]
                if not self._as_json:
                    print()
        if self._as_json:
            end = {name: last.get(name) for name in ("finish_reason", "usage")}
            show_json({"answer": "".join(said), **end})

    def _tokens(self, messages: list[dict[str, str]]) -> Iterator[dict[str, Any]]:
        return self._client.lines("/chat/stream", {"messages": messages, **self._options})


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
    asked = _given(query=query, top_k=top_k, filter=_read_filter(conditions), model_name=model)
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


def _given(**values: object) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def add_to(cli: typer.Typer) -> None:
    """Give the `app` command these commands."""
    for command in (predict, chat, search):
        cli.command(epilog=f"Example: {EXAMPLES[command.__name__]}")(command)
