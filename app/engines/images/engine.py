"""What image models on all engines share: threads, preparation, batches of one size."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from app.engines.base import Activation, FloatArray, ImageOptions, unit
from app.engines.images.items import ImageItem, Pixels
from app.engines.images.preparation import Preparation
from app.engines.rows import finite
from app.engines.scores import scores
from app.errors import ServiceError

# Images in a call: a CPU gains nothing beyond a few, a GPU does.
CPU_BATCH = 8
GPU_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHead:
    """What a model's numbers mean: a score for each label, or a vector.

    Args:
        labels: of a classifier; none: an embedder.
        activation: what makes scores of a classifier's logits.
        dimensions: of an embedder's vectors.
        is_unit: whether vectors are scaled to length 1.

    """

    labels: tuple[str, ...] = ()
    activation: Activation = Activation.NONE
    dimensions: int = 0
    is_unit: bool = True

    @property
    def columns(self) -> int:
        """How many numbers a row has."""
        return len(self.labels) or self.dimensions

    def finish(self, rows: FloatArray) -> FloatArray:
        """Return scores of logits, or the vectors, (images, columns) float32."""
        if self.labels:
            return scores(rows, self.activation)
        with np.errstate(divide="ignore", invalid="ignore"):  # `finite` comes next
            return unit(rows) if self.is_unit else rows


class ImageEngine(ABC):
    """Runs images; an `ItemEngine`.

    Args:
        preparation: of the model.
        head: of the model.
        options: how many are worked on at once.
        device: where it computes.

    """

    kind = ""

    def __init__(
        self, preparation: Preparation, head: ImageHead, *, options: ImageOptions, device: str
    ) -> None:
        self.device = device
        self.head = head
        self.labels = head.labels or None
        self.activation = head.activation
        self.workers = options.workers
        self.max_batch = CPU_BATCH if device == "cpu" else GPU_BATCH
        self.preparation = preparation
        # Of its own: texts of other models don't wait behind images that are decoded.
        self.threads: Executor = ThreadPoolExecutor(options.workers, thread_name_prefix="images")

    def estimate(self, items: Sequence[ImageItem]) -> int:
        """Return what they will take in KiB, once they are prepared."""
        return self.preparation.cost * len(items)

    def encode(self, items: Sequence[ImageItem], /) -> list[Pixels | Exception]:
        """Decode and prepare images; one that can't be has its error in its place."""
        return [self._encode(item) for item in items]

    def _encode(self, item: ImageItem) -> Pixels | Exception:
        try:
            return self.preparation(item)
        except ServiceError as error:
            return error

    def run(self, batch: Sequence[Pixels]) -> Sequence[FloatArray]:
        """Return scores or a vector for each image, float32.

        Raises:
            RowsRefusedError: a number is missing, or isn't one.

        """
        rows = self._rows(np.stack([pixels.values for pixels in batch]))
        shape = (len(batch), self.head.columns)
        return list(finite(self.head.finish(finite(rows, shape)), shape))

    @abstractmethod
    def _rows(self, values: FloatArray) -> FloatArray:
        """Return the model's output for (images, channels, height, width), (images, columns)."""

    def problems(self) -> list[str]:
        """Nothing of its own can be wrong."""
        return []

    def close(self) -> None:
        """Free the memory."""
        self.threads.shutdown(wait=False, cancel_futures=True)
