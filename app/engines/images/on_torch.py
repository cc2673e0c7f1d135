"""Image models on torch: classifiers and embedders, on a CPU or on CUDA."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from app.engines.base import EngineRequest, FloatArray, Task
from app.engines.folder.heads import activation_of, labels_of, refuse_other_image_head
from app.engines.images.engine import ImageEngine, ImageHead
from app.engines.images.preparation import Preparation, load_processor
from app.engines.images.reading import require_pillow
from app.engines.images.trying import try_out
from app.engines.images.vectors import Run, vectors_of
from app.engines.torch import LoadedModel, explained, load_model
from app.errors import EngineError


class TorchImages(ImageEngine):
    """An image model of transformers.

    Args:
        loaded: the model.
        preparation: of the model.
        head: of the model.
        run: the model, and what is answered of its output.
        request: with the options.

    """

    kind = "torch"

    def __init__(
        self,
        loaded: LoadedModel,
        preparation: Preparation,
        head: ImageHead,
        *,
        run: Run,
        request: EngineRequest,
    ) -> None:
        super().__init__(preparation, head, options=request.images, device=loaded.device)
        self.run_model: Run | None = run
        self._torch = loaded.torch
        self._dtype = loaded.model.dtype

    def width(self) -> int:
        """Return how many numbers the model has for an image."""
        return int(self._output(self.preparation.probe.values[None]).shape[1])

    def _rows(self, values: FloatArray) -> FloatArray:
        """Return logits or vectors, (images, columns) float32."""
        return self._output(values)

    def _output(self, values: FloatArray) -> FloatArray:
        if self.run_model is None:
            raise RuntimeError("the engine is closed")
        with self._torch.inference_mode():
            pixels = self._torch.from_numpy(values).to(self.device, self._dtype)
            rows = self.run_model(pixels).float().cpu().numpy()
        return np.asarray(rows, dtype=np.float32)

    def close(self) -> None:
        """Drop the weights."""
        super().close()
        self.run_model = None
        self._torch.cuda.empty_cache()  # does nothing where CUDA isn't used


def load(request: EngineRequest) -> TorchImages:
    """Load an image model from a folder of safetensors.

    Raises:
        EngineError: Pillow is missing, the model is for something else, its image processor can't
            be used, a weight is missing, or its answers to one image vary.
        UnsafeModelError: the model needs remote code.

    """
    require_pillow()
    is_classifier = request.task == Task.IMAGE_CLASSIFICATION
    loaded = load_model(request, partial(_class_of, request))
    assert request.folder is not None  # noqa: S101  # `load_model` refuses it
    preparation = Preparation(
        load_processor(request.folder, loaded.transformers), max_pixels=request.images.max_pixels
    )
    with explained(request.folder):
        if is_classifier:
            config = loaded.model.config
            head = ImageHead(labels=labels_of(config), activation=activation_of(config))
            run = Run(model=loaded.model, output=_logits)
        else:
            run = vectors_of(loaded.model, request.embedding.pooling)
            head = ImageHead(is_unit=request.embedding.normalize is not False)
        engine = TorchImages(loaded, preparation, head, run=run, request=request)
        if not is_classifier:
            engine.head = replace(head, dimensions=engine.width())
        try_out(engine)
    return engine


def _logits(output: Any) -> Any:
    if not hasattr(output, "logits"):
        raise EngineError(
            "the model's output has no logits, which transformers' pipeline needs too"
        )
    return output.logits


def _class_of(request: EngineRequest, transformers: Any) -> Any:
    assert request.folder is not None  # noqa: S101  # `load_model` refuses it
    if request.task == Task.IMAGE_EMBEDDING:
        return transformers.AutoModel
    refuse_other_image_head(request.folder, tuple(_classifiers(transformers)))
    return transformers.AutoModelForImageClassification


def _classifiers(transformers: Any) -> Iterator[str]:
    """Yield the classes that classify images; an architecture can have several."""
    mapping = transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    for names in mapping.values():
        yield from (names,) if isinstance(names, str) else names
