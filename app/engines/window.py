"""Finds out how many tokens a model really runs, by trying."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.engines.base import Encoded
from app.engines.inputs import inputs_of
from app.engines.tokenizer import TextEncoder
from app.errors import EngineError

# Lengths beyond are taken from the model's files: masks of their square would fill the memory.
MOST_TRIED = 8192
# Up to here the first layer runs too, which shows limits inside attention; attention costs the
# square of the length.
MOST_IN_A_LAYER = 2048
WORDS = "a film that stays with you, for days "


class _ReachedError(Exception):
    """The model has gone far enough to show that it takes such a length."""


def runnable_window(model: Any, encoder: TextEncoder) -> int:
    """Return the largest window up to the encoder's that the model runs.

    Positions run out early, in look-up tables before the first layer or in the first attention.
    So a try stops at the second layer and costs a large model milliseconds.

    Args:
        model: on the CPU: an index beyond a table would end the use of a GPU for good.
        encoder: with the window that the model's files say.

    Raises:
        EngineError: it runs no text at all.

    """
    tokens = min(encoder.max_tokens, MOST_TRIED)
    item = _long_text(encoder, tokens)
    failure = _failure(model, encoder, item, tokens)
    if failure is None:
        return encoder.max_tokens
    runs, fails = encoder.max_tokens - encoder.passage_tokens, tokens
    while fails - runs > 1:
        middle = (runs + fails) // 2
        if _failure(model, encoder, item, middle) is None:
            runs = middle
        else:
            fails = middle
    if runs == encoder.max_tokens - encoder.passage_tokens:
        raise EngineError(f"the model runs no text: {type(failure).__name__}: {failure}")
    return runs


def runs(model: Any, encoder: TextEncoder, item: Encoded) -> bool:
    """Say whether the beginning of a model, on the CPU, runs an item's tokens and their types."""
    return _failure(model, encoder, item, item.cost) is None


def _long_text(encoder: TextEncoder, tokens: int) -> Encoded:
    """Return a text of that many tokens, or nearly, none of which pads.

    Positions that are counted by what isn't padding must advance, also where an unknown word has
    the padding's id.
    """
    (item,) = encoder.encode([WORDS * (tokens // 4 + 1)])
    pad_id = encoder.rules.pad_id
    other = next((i for i in item.token_ids[1:] if i != pad_id), item.token_ids[0])
    ids = [other if i == pad_id else i for i in item.token_ids]
    return dataclasses.replace(item, token_ids=ids)


def _failure(model: Any, encoder: TextEncoder, item: Encoded, tokens: int) -> Exception | None:
    """Run a text of that length through the beginning of the model; return what goes wrong."""
    import torch

    # Its beginning and its end, where the special tokens are that some heads look for.
    indices = list(range(item.cost))
    positions = indices[: tokens // 2] + indices[len(indices) - (tokens - tokens // 2) :]
    cut = Encoded(
        token_ids=[item.token_ids[place] for place in positions],
        is_truncated=True,
        type_ids=[item.type_ids[place] for place in positions] if item.type_ids else (),
    )
    layers = 1 if tokens <= MOST_IN_A_LAYER else 0
    try:
        with torch.inference_mode(), _stopping(model, after=layers):
            model(**inputs_of(torch, model, encoder.rules, encoder.pad([cut])))
    except _ReachedError:
        return None
    except (IndexError, RuntimeError, ValueError) as failure:
        return failure
    return None


@contextmanager
def _stopping(model: Any, *, after: int) -> Iterator[None]:
    """Have the model raise `_ReachedError` when it enters the layer after so many."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise _ReachedError

    hooks = [layer.register_forward_pre_hook(count) for layer in _layers(model)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _layers(model: Any) -> Iterator[Any]:
    """Yield the members of the outermost lists of modules, which are a model's layers."""
    import torch

    stacks: list[str] = []
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.ModuleList):
            continue
        if not any(name.startswith(f"{outer}.") for outer in stacks):
            stacks.append(name)
            yield from module
