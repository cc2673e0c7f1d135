"""Runs an image engine once before it serves, and makes images to compare two engines on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from app.engines.base import FloatArray
from app.engines.images.engine import ImageEngine
from app.engines.images.items import Pixels
from app.errors import EngineError

if TYPE_CHECKING:
    from PIL.Image import Image

# (width, height): square, wide and high, smaller and larger than what models take.
SIZES = ((224, 224), (640, 480), (300, 400), (96, 32), (50, 180), (512, 512))
# Of what the images are made: coarse noise has shapes, fine noise has textures.
CELLS = (2, 5, 11, 40)
COLOURS = 256
# Between answers to one image, alone and in a batch: rather more than half precision does.
MOST_VARIANCE = 0.02
SEED = 17


def try_out(engine: ImageEngine) -> None:
    """Run an engine on two images, so that no request waits for what a first call does.

    Raises:
        RowsRefusedError: the model gives no usable numbers.
        EngineError: its answers to one image vary, as of models that leave out random parts.

    """
    probe = engine.preparation.probe
    rows = np.stack([*engine.run([probe]), *engine.run([probe] * 2)])
    if np.ptp(rows, axis=0).max() > MOST_VARIANCE * max(1.0, float(np.abs(rows).max())):
        raise EngineError("the model's answers to one image vary")


def calibration_images() -> "list[Image]":
    """Return images of many shapes, colours and textures, the same ones each time."""
    import PIL.Image

    random = np.random.default_rng(SEED)
    made = []
    for size in SIZES:
        for cells in CELLS:
            noise = random.integers(0, COLOURS, (cells, cells, 3), dtype=np.uint8)
            resample = PIL.Image.Resampling.BICUBIC if cells % 2 else PIL.Image.Resampling.NEAREST
            made.append(PIL.Image.fromarray(noise, "RGB").resize(size, resample))
    return made


def prepared(engine: ImageEngine) -> list[Pixels]:
    """Return the images to compare on as an engine takes them."""
    return [engine.preparation.prepare(image) for image in calibration_images()]


def answers(engine: ImageEngine, batch: Sequence[Pixels], *, at_once: int) -> FloatArray:
    """Return a row for each image, (images, columns) float32, so many in a call."""
    cuts = range(0, len(batch), at_once)
    return np.stack([row for cut in cuts for row in engine.run(batch[cut : cut + at_once])])
