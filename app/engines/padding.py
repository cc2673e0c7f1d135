"""Finds out how to pad a torch model's batches: each text must be answered as it is alone."""

from collections.abc import Callable, Sequence

import numpy as np

from app.engines.base import Encoded, FloatArray
from app.engines.tokenizer import Padding
from app.errors import EngineError

# Of many lengths; the last is cut where the window is small.
PROBES = (
    "fine",
    "A film that stays with you for days.",
    "It broke after a week, and nobody answered my letters.",
    "The plot is thin and the cast is poor, but the music is so good that I would go again. " * 3,
)
# Their second texts are short: in some models only the first may be cut.
PAIR_PROBES = ((PROBES[1], PROBES[0]), (PROBES[3], "It broke."), (PROBES[0], "a film"))
# Against the largest number of an answer. Float32 is right to 1e-5; what padding does to a model
# that can't take it is a hundred times more.
MOST = {"float32": 1e-3, "half": 0.05}

Run = Callable[[Sequence[Encoded], Padding], FloatArray]


def choose_padding(
    run: Run, items: Sequence[Encoded], *, most: float, first: Padding = Padding.RIGHT
) -> Padding:
    """Return the first way to pad with which texts are answered in a batch as they are alone.

    Args:
        run: gives each text of a batch its row, padded in that way.
        items: texts of different lengths.
        most: how far two answers may differ, as a share of the largest number.
        first: the first way that is tried.

    Raises:
        EngineError: answers aren't numbers, or a text alone isn't answered twice alike.

    """
    items = [item for item in items if item.cost]
    alone = run(items, Padding.NONE)
    if not np.isfinite(alone).all():
        raise EngineError("the model's answers aren't numbers (NaN or infinity)")
    ways = list(Padding)[list(Padding).index(first) :]
    for padding in ways:
        try:
            together = run(items[::-1], padding)[::-1]
        except (RuntimeError, ValueError, IndexError):
            continue  # it can't take a batch, or padding, at all
        if np.abs(together - alone).max() <= most * (np.abs(alone).max() or 1.0):
            return padding
    raise EngineError(
        "the model doesn't answer a text twice alike: it draws at random, or keeps something of"
        " the texts before"
    )
