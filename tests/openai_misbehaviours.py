"""How a server of OpenAI's kind can fail: refusals, cuts, garbage, silence."""

import json
from collections.abc import Callable

from openai_server import PROVIDER_WORDS, Behaviour, Exchange, say


def wait_after(*tokens: str) -> Behaviour:
    """Say tokens, wait for `go`, and end well; without tokens not even the head is sent before."""

    def behave(exchange: Exchange) -> None:
        if not tokens:
            if exchange.hold():
                say("late")(exchange)
            return
        exchange.begin()
        exchange.tokens(*tokens)
        if exchange.hold():
            exchange.tokens(" late")
            exchange.finish()

    return behave


def refuse(status: int, *, code: str = "refused", text: str = "", **headers: str) -> Behaviour:
    """Answer with an error in OpenAI's shape; `Retry_After` and the like are headers."""

    def behave(exchange: Exchange) -> None:
        error = {"message": f"{PROVIDER_WORDS} {text}", "type": "t", "param": None, "code": code}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Content-Type"] = "application/json"
        exchange.answer(status, json.dumps({"error": error}).encode(), named)

    return behave


def answer(body: bytes, *, kind: str) -> Behaviour:
    """Answer 200 with this body."""
    return lambda exchange: exchange.answer(200, body, {"Content-Type": kind})


def then(*tokens: str, last: Callable[[Exchange], None]) -> Behaviour:
    """Say tokens, and after them something else."""

    def behave(exchange: Exchange) -> None:
        exchange.begin()
        exchange.tokens(*tokens)
        last(exchange)

    return behave


def cut_in_chunk(exchange: Exchange) -> None:
    """Close the connection in the midst of an event."""
    exchange.send(b'data: {"id":"chatcmpl-1","object":"chat.comp')
    exchange.cut()


def end_early(exchange: Exchange) -> None:
    """End the answer as HTTP has it, but without finish_reason and [DONE]."""
    exchange.end()


def send_error(exchange: Exchange) -> None:
    """Send an `error` object where a chunk belongs, as vLLM does."""
    exchange.event({"error": {"message": PROVIDER_WORDS, "type": "InternalServerError"}})
    exchange.end()


def send_garbage(exchange: Exchange) -> None:
    """Send an event that is no JSON."""
    exchange.send(f"data: {{{PROVIDER_WORDS}\n\n".encode())
    exchange.end()
