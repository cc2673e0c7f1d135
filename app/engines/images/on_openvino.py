"""Image models on OpenVINO: served from a converted graph, held against torch once before."""

import logging
import textwrap
from collections.abc import Callable, Iterator

import numpy as np

from app.engines.base import Activation, EngineRequest, FloatArray
from app.engines.images.converted import ConvertedImages
from app.engines.images.engine import CPU_BATCH, ImageEngine
from app.engines.images.preparation import VALUES, Preparation, load_processor
from app.engines.images.reading import require_pillow
from app.engines.images.trying import try_out
from app.engines.openvino.failures import ConversionError
from app.engines.openvino.processor import GraphPair, Processor, release_memory
from app.engines.torch import MAX_REASON_CHARS, transformers_library

log = logging.getLogger(__name__)

Prepare = Callable[[EngineRequest], None]


class OpenVinoImages(ImageEngine):
    """A converted image model.

    Args:
        graphs: compiled.
        preparation: of the model.
        converted: the model.
        request: with the options.

    """

    kind = "openvino"

    def __init__(
        self,
        graphs: GraphPair,
        preparation: Preparation,
        converted: ConvertedImages,
        *,
        request: EngineRequest,
    ) -> None:
        super().__init__(preparation, converted.head, options=request.images, device="cpu")
        self._graphs: GraphPair | None = graphs

    def _rows(self, values: FloatArray) -> FloatArray:
        """Return the graph's output, (images, columns) float32."""
        if self._graphs is None:
            raise RuntimeError("the engine is closed")
        rows = np.empty((len(values), self.head.columns), dtype=np.float32)
        with self._graphs.choose() as graph:
            for start, end in _pieces(len(values)):
                rows[start:end] = graph.infer({VALUES: values[start:end]})
        return rows

    def close(self) -> None:
        """Drop the compiled models."""
        super().close()
        self._graphs = None


def _pieces(count: int) -> Iterator[tuple[int, int]]:
    """Yield pieces of 8, 4, 2 and 1 images: OpenVINO keeps what it made for each number."""
    start, size = 0, CPU_BATCH
    while start < count:
        while size > count - start:
            size //= 2
        yield start, start + size
        start += size


def compile_images(
    request: EngineRequest, converted: ConvertedImages, processor: Processor
) -> OpenVinoImages:
    """Compile a converted model and put its image processor in front.

    Raises:
        ConversionError: OpenVINO can't run it.
        EngineError: Pillow is missing, or the image processor can't be used.

    """
    require_pillow()
    assert request.folder is not None  # noqa: S101  # `folder_of` refuses it
    preparation = Preparation(
        load_processor(request.folder, transformers_library()),
        max_pixels=request.images.max_pixels,
    )
    # As of texts: no softmax hides what bfloat16 does to the numbers of a regression.
    is_exact = bool(converted.head.labels) and converted.head.activation is Activation.NONE
    try:
        graphs = processor.compile(converted.graph, precision="f32" if is_exact else None)
        engine = OpenVinoImages(graphs, preparation, converted, request=request)
        try_out(engine)
    except (RuntimeError, ValueError) as failure:
        reason = textwrap.shorten(str(failure), MAX_REASON_CHARS)
        raise ConversionError(f"{converted.folder}: {reason}") from failure
    release_memory(converted.weights)
    return engine
