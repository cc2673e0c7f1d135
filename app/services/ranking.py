"""Ranking: how well texts answer a query, by a model that reads each together with the query."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.batching.base import Scheduler
from app.engines.base import Classifier, Pair, Task
from app.models.registry import TaskKey
from app.services.inference import Inference
from app.services.places import place_in, whole

RANKERS = TaskKey[Scheduler[Classifier]](Task.RANKING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Which texts answer a query best."""

    model: str
    best: tuple[tuple[int, float], ...]  # index and score of each text, the best first
    truncated: tuple[int, ...]  # indexes of the texts that were cut to the model's window
    tokens: int  # of all pairs, after cutting
    longest: int  # tokens of the longest pair, after cutting


def pairs_with(query: str, texts: Sequence[str]) -> list[Pair]:
    """Return what a ranking model is given."""
    return [(query, text) for text in texts]


def ranking_of(field: str) -> Callable[[Inference[Classifier]], Ranking]:
    """Return what ranks all texts of a field, or raises as `whole`.

    Equal scores stay in the order of the texts.
    """

    def rank(inference: Inference[Classifier]) -> Ranking:
        scores = [float(row[0]) for row in whole(inference.rows, place_in(field))]
        order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
        cut = (index for index, is_cut in enumerate(inference.is_truncated) if is_cut)
        return Ranking(
            model=inference.model,
            best=tuple((index, scores[index]) for index in order),
            truncated=tuple(cut),
            tokens=inference.tokens,
            longest=max(
                (one.cost for one in inference.encoded if not isinstance(one, Exception)), default=0
            ),
        )

    return rank
