"""Serves a kind of image model on each engine; holds its answers against transformers' pipeline."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from image_kinds import ImageKind
from outcomes import (
    FLOAT32,
    LEAST_SPREAD,
    MOST,
    TORCH,
    Outcome,
    Verdict,
    labels_equal,
    line_of,
    processors,
)
from pictures import pictures
from tiny_images import pipeline_rows, request_for

from app.engines.base import Activation, FloatArray, OpenVinoOptions
from app.engines.images.conversion import compare, convert, load_reference
from app.engines.images.converted import read
from app.engines.images.engine import ImageEngine
from app.engines.images.items import ImageItem, Pixels
from app.engines.images.on_openvino import compile_images
from app.engines.openvino.converted import folder_of
from app.engines.openvino.failures import ConversionError
from app.errors import EngineError


def image_outcomes(
    kind: ImageKind, folder: Path, *, kept: Path | None = None
) -> dict[str, Outcome]:
    """Return what each engine makes of a kind, as `outcomes` does of a text model."""
    kind.write(folder)
    options = OpenVinoOptions(cache=kept or folder.parent / "converted", cores=1, calls=1)
    request = replace(request_for(folder), openvino=options)
    try:
        reference = load_reference(request)
    except EngineError as refusal:
        refused = Outcome(verdict=Verdict.REFUSED, line=line_of(refusal, folder))
        return {TORCH: refused, FLOAT32: refused}
    files = list(pictures().values())
    expected = pipeline_rows(folder, files)
    found = {TORCH: _judge(TORCH, reference, files, expected)}
    try:
        place = folder_of(request)
        converted = read(place) or convert(reference, place)
        for name, processor in processors(request):
            engine = compile_images(request, converted, processor)
            if compare(engine, reference).agrees:
                found[name] = _judge(name, engine, files, expected)
            else:
                found[name] = Outcome(verdict=Verdict.REFUSED, line="disagrees with torch")
    except ConversionError as refusal:
        found[FLOAT32] = Outcome(verdict=Verdict.REFUSED, line=line_of(refusal, folder))
    return found


def _judge(name: str, engine: ImageEngine, files: Sequence[bytes], expected: FloatArray) -> Outcome:
    assert np.ptp(expected, axis=0).max() > LEAST_SPREAD, "the images have to differ"
    is_free = engine.activation is Activation.NONE
    size = max(1.0, float(np.abs(expected).max())) if is_free else 1.0
    batch = _encoded(engine, files)
    difference, is_right = 0.0, True
    for rows in (
        np.stack([row for pixels in batch for row in engine.run([pixels])]),
        np.stack(engine.run(batch)),
    ):
        difference = max(difference, float(np.abs(rows - expected).max()) / size)
        is_right &= is_free or labels_equal(rows, expected)
    is_right &= difference <= MOST[name]
    verdict = Verdict.RIGHT if is_right else Verdict.WRONG
    return Outcome(verdict=verdict, difference=difference)


def _encoded(engine: ImageEngine, files: Sequence[bytes]) -> list[Pixels]:
    batch = engine.encode([ImageItem(file) for file in files])
    failed = [str(one) for one in batch if isinstance(one, Exception)]
    assert not failed, failed
    return [one for one in batch if isinstance(one, Pixels)]
