"""A graph as an engine: its items are read, stacked and run in batches like texts."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pydantic_core import to_json

from app.engines.onnx.graph import Graph, Stacking
from app.engines.onnx.tensors import Array
from app.engines.python.runner import Answer, Facts
from app.engines.rows import RowsRefusedError
from app.engines.stream_slots import StreamSlots
from app.errors import InvalidRequestError

# Runs the graph: arrays by the names of its inputs in, its outputs in their order out.
Call = Callable[[Mapping[str, Array]], Sequence[Any]]
# Items in a call. Where each is a call of its own, a batch spares wake-ups of the loop only, and
# the first of it waits for the last.
BATCH: Final = 64
ONE_BY_ONE: Final = 8
# Weight of the latest items in the mean cost that admission is given before costs are known.
MEMORY: Final = 0.1
NO_MEMORY: Final = "Failed to allocate memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphItem:
    """An item of a request, as the graph takes it."""

    arrays: Mapping[str, Array]
    cost: int
    is_truncated: bool = False

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each input: items of the same ones can be stacked."""
        return tuple(array.shape for array in self.arrays.values())


class OnnxEngine:
    """Runs a graph.

    Args:
        graph: what it takes and gives.
        call: runs it; may be called in several threads.
        device: where it computes.
        workers: calls at once.
        labels: of its answers, for `GET /models`.

    """

    kind = "onnx"

    def __init__(
        self, graph: Graph, call: Call, *, device: str, workers: int, labels: Sequence[str] = ()
    ) -> None:
        self.device = device
        self.workers = workers
        self.labels = tuple(labels) or None
        self.graph = graph
        takes_batches = graph.stacking is Stacking.STACKED
        self.facts = Facts(
            item_schema=graph.item_schema(),
            answer_schema=graph.answer_schema(),
            labels=tuple(labels),
            version="",  # that of its files, which the loader knows
            takes_batches=takes_batches,
            has_check=False,
        )
        self.max_batch = BATCH if takes_batches else ONE_BY_ONE
        self.slots: StreamSlots | None = None  # a graph answers at once
        self._call: Call | None = call
        self._mean_cost = 1.0

    def stream(self, _item: Any, /) -> Generator[bytes]:  # noqa: ANN401  # parsed JSON
        """Answer nothing: no slot lets a caller in."""
        yield from ()

    def estimate(self, items: Sequence[Any]) -> int:
        """Return the mean cost of earlier items, times their number."""
        return round(self._mean_cost * len(items)) or 1

    def encode(self, items: Sequence[Any], /) -> list[GraphItem | Exception]:
        """Make arrays of parsed JSON; an item that is wrong has its error in its place."""
        return [self._encode(item) for item in items]

    def _encode(self, item: Any) -> GraphItem | Exception:  # noqa: ANN401  # parsed JSON
        try:
            arrays = self.graph.read(item)
        except InvalidRequestError as refused:
            return refused
        cost = self.graph.cost(arrays)
        self._mean_cost += MEMORY * (cost - self._mean_cost)
        return GraphItem(arrays=arrays, cost=cost)

    def run(self, batch: Sequence[GraphItem]) -> Sequence[Answer | Exception]:
        """Return the answer to each item, or the exception of one that failed alone.

        Items of the same shapes are one call, if the graph bears it; others aren't padded, as only
        the graph's author knows with what.
        """
        rows: dict[int, Answer | Exception] = {}
        for indexes in self._groups(batch):
            try:
                outputs = self._outputs([batch[index].arrays for index in indexes])
            except Exception as failure:
                if len(indexes) > 1 or isinstance(failure, MemoryError):
                    raise  # to be run again in halves
                rows[indexes[0]] = failure
                continue
            rows |= {i: self._answer(values) for i, values in zip(indexes, outputs, strict=True)}
        return [rows[index] for index in range(len(batch))]

    def _groups(self, batch: Sequence[GraphItem]) -> list[list[int]]:
        if self.graph.stacking is not Stacking.STACKED:
            return [[index] for index in range(len(batch))]
        groups: dict[Any, list[int]] = {}
        for index, item in enumerate(batch):
            groups.setdefault(item.shapes, []).append(index)
        return list(groups.values())

    def _outputs(self, items: Sequence[Mapping[str, Array]]) -> list[list[Any]]:
        """Run one call; return the outputs of each item."""
        assert self._call is not None  # noqa: S101  # nothing is running when it is closed
        if self.graph.stacking is Stacking.WHOLE:
            return [list(guarded(self._call, items[0]))]
        feeds = {name: np.stack([item[name] for item in items]) for name in items[0]}
        outputs = guarded(self._call, feeds)
        for form, output in zip(self.graph.outputs, outputs, strict=True):
            check_rows(form.name, output, len(items))
        return [[output[place] for output in outputs] for place in range(len(items))]

    def _answer(self, outputs: Sequence[Any]) -> Answer | Exception:
        """Return an item's outputs as JSON."""
        try:
            plain = {
                form.name: form.write(value)
                for form, value in zip(self.graph.outputs, outputs, strict=True)
            }
        except RowsRefusedError as refused:
            return refused
        label, score = self._winner(plain)
        return Answer(content=to_json(plain), label=label, score=score)

    def _winner(self, plain: Mapping[str, Any]) -> tuple[str | None, float | None]:
        """Return what the log of predictions says of an answer.

        A label is one that a map has a number for; a score alone is a single number.
        """
        maps = [value for value in plain.values() if isinstance(value, dict)]
        labels = [str(value) for value in plain.values() if isinstance(value, str | int)]
        for label in labels:
            if maps and label in maps[0]:
                return label, maps[0][label]
        (score, *others) = plain.values()
        return None, score if isinstance(score, float) and not others else None

    def problems(self) -> list[str]:
        """Return nothing: a graph has no health of its own."""
        return []

    def close(self) -> None:
        """Release the graph's memory."""
        self._call = None


def guarded(call: Call, feeds: Mapping[str, Array]) -> Sequence[Any]:
    """Run a graph; a lack of memory is Python's own error, so that smaller batches are tried.

    Raises:
        MemoryError: a smaller batch may do.

    """
    try:
        return call(feeds)
    except Exception as failure:
        if NO_MEMORY in str(failure):
            raise MemoryError(str(failure)) from failure
        raise


def check_rows(name: str, output: Any, count: int) -> None:  # noqa: ANN401  # an array, or maps
    """Refuse an output that hasn't a row for each item: answers could go to wrong ones.

    Raises:
        RowsRefusedError: it has another number of them.

    """
    shape = np.shape(output) if isinstance(output, np.ndarray) else (len(output),)
    if not shape or shape[0] != count:
        raise RowsRefusedError(f"the output {name} has the shape {shape} for {count} items")
