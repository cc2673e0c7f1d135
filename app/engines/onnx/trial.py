"""The first calls of a graph: whether an item's answer depends on those that it is stacked with.

Shapes alone don't tell. Exporters write a batch of one into the middle of a graph, a first
dimension may be a length instead of a batch, and weights that are quantised by the batch give the
same item another answer in other company.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from app.engines.onnx.engine import Call, guarded
from app.engines.onnx.graph import Graph, Stacking, stacked, stacking_of
from app.engines.onnx.tensors import TEXTS, Array, TensorForm

log = logging.getLogger(__name__)

# Lengths that the graph leaves open: some need a few, an image network needs more.
LENGTHS: Final = (4, 32, 224)
# Of an input: with several open lengths, 224 each is more than a machine has.
MAX_VALUES: Final = 2**24
SEED: Final = 0
# Of the second item's numbers: where weights are scaled by the batch, it outweighs the first.
SPREAD: Final = 10.0
# Of an output's largest number. Sums in another order differ by 1e-6 of it, scales of a batch by
# 1e-2.
TOLERANCE: Final = 1e-3

Outputs = Sequence[Any]


def choose_stacking(whole: Graph, call: Call, *, name: str) -> Graph:
    """Return a graph in the form in which items don't change each other's answers.

    Args:
        whole: as `read_graph` returned it.
        call: runs it, here for a few made-up items.
        name: of the model, for the log.

    """
    stacking = stacking_of(whole)
    if stacking is Stacking.STACKED:
        stacking, reason = _try_together(stacked(whole, stacking), call)
        if stacking is not Stacking.STACKED:
            extra = {"model": name, "reason": reason, "items": stacking.value}
            log.warning("onnx_not_stacked", extra=extra)
    elif stacking is Stacking.ONE and not _keeps_first(stacked(whole, stacking), call):
        stacking = Stacking.WHOLE
    return stacked(whole, stacking)


def _try_together(graph: Graph, call: Call) -> tuple[Stacking, str]:
    """Return how items can be run, and why not together; together where nothing made up runs."""
    for first, second in _made_up(graph):
        try:
            alone = [guarded(call, _feeds(graph, item)) for item in (first, second)]
        except Exception:  # noqa: BLE001, S112  # made-up items; the next may do
            continue
        try:
            together = guarded(call, _feeds(graph, first, second))
        except Exception as failure:  # noqa: BLE001  # any of the library's
            return Stacking.ONE, f"two items together fail ({type(failure).__name__})"
        return _compare(graph, alone, together)
    return Stacking.STACKED, ""  # as its shapes say


def _keeps_first(graph: Graph, call: Call) -> bool:
    """Say whether one item in gives one item out; yes where nothing made up can be run."""
    for first, _ in _made_up(graph):
        try:
            outputs = guarded(call, _feeds(graph, first))
        except Exception:  # noqa: BLE001, S112  # as above
            continue
        return all(_length(output) == 1 for output in outputs)
    return True


def _compare(graph: Graph, alone: Sequence[Outputs], together: Outputs) -> tuple[Stacking, str]:
    """Compare the outputs of items alone and together."""
    for index, form in enumerate(graph.outputs):
        ones, both = [outputs[index] for outputs in alone], together[index]
        if [_length(output) for output in (*ones, both)] != [1, 1, len(ones)]:
            return Stacking.WHOLE, f"the output {form.name} has not a row for each item"
        if not all(_is_same(one[0], row) for one, row in zip(ones, both, strict=True)):
            return Stacking.ONE, f"the output {form.name} depends on the items beside its own"
    return Stacking.STACKED, ""


def _length(output: Any) -> int | None:  # noqa: ANN401  # an array, or maps
    if isinstance(output, np.ndarray) and output.ndim == 0:
        return None
    return len(output)


def _is_same(one: Any, two: Any) -> bool:  # noqa: ANN401  # of an array, or maps
    """Compare an item's part of an output."""
    if isinstance(one, Mapping):
        return list(one) == list(two) and _is_same(
            np.array(list(one.values())), np.array(list(two.values()))
        )
    one, two = np.asarray(one), np.asarray(two)
    if one.shape != two.shape:
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, two))
    finite = np.abs(one[np.isfinite(one)]).astype(np.float64)
    allowed = TOLERANCE * max(finite.max(initial=0.0), TOLERANCE)
    return bool(np.allclose(one, two, rtol=0.0, atol=allowed, equal_nan=True))


def _feeds(graph: Graph, *items: Mapping[str, Array]) -> dict[str, Array]:
    return {form.name: np.stack([item[form.name] for item in items]) for form in graph.inputs}


def _made_up(graph: Graph) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
    """Yield pairs of items; later ones are longer, and their integers are 0 only."""
    for length in LENGTHS:
        if all(math.prod(_shape(form, length)) <= MAX_VALUES for form in graph.inputs):
            yield _item(graph, length, high=2), _item(graph, length, high=2, spread=SPREAD)
    yield _item(graph, LENGTHS[0], high=1), _item(graph, LENGTHS[0], high=1, spread=SPREAD)


def _shape(form: TensorForm, length: int) -> list[int]:
    return [dim if isinstance(dim, int) else length for dim in form.dims]


def _item(graph: Graph, length: int, *, high: int, spread: float = 1.0) -> dict[str, Array]:
    random = np.random.default_rng([SEED, int(spread)])
    return {form.name: _values(form, random, length, high, spread) for form in graph.inputs}


def _values(
    form: TensorForm, random: np.random.Generator, length: int, high: int, spread: float
) -> Array:
    shape = _shape(form, length)
    if form.element == TEXTS:
        return np.full(shape, "a" * int(spread), dtype=object)
    if form.dtype.kind == "f":
        return (random.standard_normal(shape) * spread).astype(form.dtype)
    return random.integers(0, high, size=shape).astype(form.dtype)
