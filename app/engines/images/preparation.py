"""Makes pixels of images with a model's own image processor, the one of transformers on Pillow."""

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.engines.base import FloatArray
from app.engines.images.items import ImageItem, Pixels, cost_of
from app.engines.images.reading import PixelRoom, decode, open_image, read_file
from app.errors import EngineError, ImageTooLargeError, ImageUnreadableError

if TYPE_CHECKING:
    from PIL.Image import Image

VALUES = "pixel_values"
IMAGE_DIMENSIONS = 3  # channels, height, width
# Square, wide, high: whether a processor makes one size of all.
PROBE_SIZES = ((64, 64), (96, 48), (40, 90))
MAX_REASON_CHARS = 200


class Preparation:
    """Reads images and prepares them for one model.

    Args:
        processor: of transformers; called in several threads.
        max_pixels: of an image, and of all that are decoded at once.

    Raises:
        EngineError: the processor makes something else than pixels of an image.

    """

    def __init__(self, processor: Any, *, max_pixels: int) -> None:
        self._processor = processor
        self._max_pixels = max_pixels
        self._room = PixelRoom(max_pixels)
        # The length to which the shorter side is scaled; the other becomes as long as it will.
        self._shortest = _shortest_edge(processor)
        probes = [self._probe(size) for size in PROBE_SIZES]
        if len({values.shape for values in probes}) > 1:
            raise EngineError(
                f"{type(processor).__name__} makes images of different sizes, by this model's"
                " preprocessor_config.json; only models that take one size are served"
            )
        self.shape = probes[0].shape  # (channels, height, width) of every image
        self.cost = cost_of(probes[0])
        self.probe = Pixels(probes[0])

    def __call__(self, item: ImageItem) -> Pixels:
        """Read and prepare an image; blocks.

        Raises:
            ImageUnreadableError: it is damaged, or in a format that isn't taken.
            ImageTooLargeError: it has too many pixels, or would have when it is scaled.
            OverloadedError: other images took all the memory for a long time.

        """
        file = read_file(item)
        image = open_image(file, max_pixels=self._max_pixels)
        with self._room.hold(self._needed(*image.size)):
            return self.prepare(decode(image))

    def prepare(self, image: "Image") -> Pixels:
        """Prepare an image in RGB.

        Raises:
            ImageUnreadableError: the processor can't do one of its size.

        """
        return Pixels(self._process(image))

    def _needed(self, width: int, height: int) -> int:
        """Return the pixels of an image, or those that it is scaled to where they are more."""
        scaled = 0
        if self._shortest:
            short, long = sorted((width, height))
            scaled = math.ceil(self._shortest**2 * long / short)
        if scaled > self._max_pixels:
            raise ImageTooLargeError(
                f"The image of {width} times {height} pixels is too long and narrow for this model."
            )
        return max(width * height, scaled)

    def _process(self, image: "Image") -> FloatArray:
        """Return what the processor makes of an image, (channels, height, width) float32."""
        try:
            made = self._processor(images=image, return_tensors="np")[VALUES]
            values = np.ascontiguousarray(made[0], dtype=np.float32)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  # of forty processors, each in its own way
            values = None
        if values is None or values.shape != self.shape:
            width, height = image.size
            raise ImageUnreadableError(
                f"This model's preparation can't do an image of {width} times {height} pixels."
            )
        return values

    def _probe(self, size: tuple[int, int]) -> FloatArray:
        import PIL.Image

        image = PIL.Image.linear_gradient("L").resize(size).convert("RGB")
        try:
            made = self._processor(images=image, return_tensors="np")
        except Exception as failure:
            reason = _short(failure)
            raise EngineError(
                f"{type(self._processor).__name__} can't prepare an image: {reason}"
            ) from failure
        if set(made) != {VALUES} or np.ndim(made[VALUES]) != IMAGE_DIMENSIONS + 1:
            raise EngineError(
                f"{type(self._processor).__name__} makes {', '.join(made)} of an image; only models"
                f" that take {VALUES} of one image are served"
            )
        return np.asarray(made[VALUES][0], dtype=np.float32)


def _shortest_edge(processor: Any) -> float:
    """Return to how many pixels a processor scales the shorter side; 0 where both have a bound."""
    size = getattr(processor, "size", None)
    edge = getattr(size, "shortest_edge", None)
    if not edge or getattr(size, "longest_edge", None) or not getattr(processor, "do_resize", True):
        return 0
    return float(edge) / min(1.0, getattr(processor, "crop_pct", None) or 1.0)


def load_processor(folder: Path, transformers: Any) -> Any:
    """Load a folder's image processor, the one on Pillow.

    Raises:
        EngineError: there is none, or it can't be loaded without torchvision.

    """
    try:
        return transformers.AutoImageProcessor.from_pretrained(
            folder, backend="pil", trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, ImportError, LookupError, TypeError) as failure:
        reason = _short(failure)
        raise EngineError(f"{folder}: its image processor can't be loaded: {reason}") from failure


def _short(failure: Exception) -> str:
    return textwrap.shorten(f"{type(failure).__name__}: {failure}", MAX_REASON_CHARS)
