"""The `app chat` command."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.console.options import (
    DEFAULT_URL,
    STDIN,
    Json,
    Key,
    Model,
    Url,
    connected,
    print_error,
    request_fields,
    show,
    show_json,
    standard_input,
)

if TYPE_CHECKING:
    from app.console.client import Client

PROMPT = "you> "


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
    options = request_fields(model_name=model, max_tokens=max_tokens, temperature=temperature)
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
    """Send what a person types; an error ends the answer, not the conversation."""
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
            print_error(str(failure))
        except KeyboardInterrupt:
            print(" (stopped)")


class _Conversation:
    """The messages so far."""

    def __init__(
        self, client: "Client", options: dict[str, Any], *, system: str | None, as_json: bool
    ) -> None:
        self._client = client
        self._options = options
        self._as_json = as_json
        self._messages = [{"role": "system", "content": system}] if system else []

    def ask(self, question: str) -> None:
        """Print the answer as it comes; both become messages, also of an answer that is cut off."""
        messages = [*self._messages, {"role": "user", "content": question}]
        tokens: list[str] = []
        last: dict[str, Any] = {}
        try:
            for last in self._tokens(messages):
                tokens.append(last["token"])
                if not self._as_json:
                    show(last["token"], end="")
        finally:
            if tokens:
                answer = {"role": "assistant", "content": "".join(tokens)}
                self._messages = [*messages, answer]
                if not self._as_json:
                    print()
        if self._as_json:
            end = {name: last.get(name) for name in ("finish_reason", "usage")}
            show_json({"answer": "".join(tokens), **end})

    def _tokens(self, messages: list[dict[str, str]]) -> Iterator[dict[str, Any]]:
        return self._client.lines("/chat/stream", {"messages": messages, **self._options})


def add_to(cli: typer.Typer) -> None:
    """Give the `app` command this command."""
    cli.command(
        epilog="Example: app chat --system 'You are a poet.'; or: app chat 'What is 2 + 2?'"
    )(chat)
