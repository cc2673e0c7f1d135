"""Converts an image model to OpenVINO and compares it with torch, once, with the cache's lock."""

import logging
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from app.engines.base import Activation, EngineRequest, FloatArray
from app.engines.images import on_torch
from app.engines.images.converted import ConvertedImages, describe, read
from app.engines.images.engine import CPU_BATCH, ImageEngine
from app.engines.images.on_openvino import OpenVinoImages, compile_images
from app.engines.images.preparation import VALUES
from app.engines.images.trying import answers, prepared
from app.engines.images.vectors import Run
from app.engines.openvino.agreement import (
    LEAST,
    MOST,
    Verdict,
    is_close,
    read_verdict,
    verdict_of,
    write_verdict,
)
from app.engines.openvino.child import prepare_in_child
from app.engines.openvino.conversion import converted_into
from app.engines.openvino.converted import GRAPH, folder_of, options_of
from app.engines.openvino.failures import (
    ConversionError,
    DisagreementError,
)
from app.engines.openvino.loading import prepare_once
from app.engines.openvino.preparation import (
    COMPARING,
    CONVERTING,
    LOADING,
    locked,
    step,
)
from app.engines.openvino.processor import Processor, openvino_library
from app.engines.openvino.refused import file_of, raise_remembered
from app.engines.rows import RowsRefusedError
from app.engines.torch import MAX_REASON_CHARS

log = logging.getLogger(__name__)

Prepare = Callable[[EngineRequest], None]
LoadReference = Callable[[EngineRequest], on_torch.TorchImages]
EXAMPLES = 2  # images to trace with: a graph must not learn that there is one
# Changes when other images are compared: a verdict on others says nothing.
BASIS = repr(("images 1", LEAST, MOST))


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImages:
    """A converted model and the verdict of the comparison with torch on such a processor."""

    converted: ConvertedImages
    verdict: Verdict


def load(request: EngineRequest, prepare: Prepare = prepare_in_child) -> OpenVinoImages:
    """Load an image model, converting it first if that hasn't been done.

    Raises:
        DisagreementError: the converted model's answers differ from torch's.
        ConversionError: it can't be converted, or OpenVINO can't run it.
        EngineError: Pillow is missing, or the model can't be served at all.

    """
    folder, processor = folder_of(request), Processor(options_of(request))
    found = find(folder, processor)
    if found is None:
        raise_remembered(request)
        log.info("model_converting", extra={"model": request.name, "folder": str(folder)})
        prepare_once(request, prepare)
        found = find(folder, processor)
    if found is None:
        raise ConversionError(f"{folder}: not as it was left after the conversion")
    if not found.verdict.agrees:
        raise DisagreementError(found.verdict.figures)
    return compile_images(request, found.converted, processor)


def find(folder: Path, processor: Processor) -> PreparedImages | None:
    """Return what an earlier start prepared; None where a part of it is missing or damaged."""
    verdict = read_verdict(verdict_of(folder, processor.precision, BASIS))
    converted = read(folder) if verdict else None
    return PreparedImages(converted=converted, verdict=verdict) if converted and verdict else None


def load_reference(request: EngineRequest) -> on_torch.TorchImages:
    """Load the model on torch, in float32 on the CPU, as the reference of the comparison."""
    return on_torch.load(replace(request, device="cpu", threads=options_of(request).cores))


def prepare(request: EngineRequest, load_reference: LoadReference = load_reference) -> None:
    """Convert the model and compare it with torch, unless another process has just done so.

    Raises:
        StartupError: it can't be converted, or torch can't load it.

    """
    with locked(request):
        folder, processor = folder_of(request), Processor(options_of(request))
        if find(folder, processor):
            return
        request.on_step(step(LOADING))
        reference = load_reference(request)
        request.on_step(step(CONVERTING))
        converted = read(folder) or convert(reference, folder)
        request.on_step(step(COMPARING))
        verdict = compare(compile_images(request, converted, processor), reference)
        write_verdict(verdict_of(folder, processor.precision, BASIS), verdict)
        file_of(request).unlink(missing_ok=True)  # of other settings


def convert(reference: on_torch.TorchImages, folder: Path) -> ConvertedImages:
    """Convert a loaded model and save it atomically; call it with the cache's lock held.

    Raises:
        ConversionError: OpenVINO can't convert the model, or the folder can't be written.

    """
    with converted_into(folder) as temporary:
        openvino = openvino_library()
        graph = _graph(openvino, reference)
        openvino.save_model(graph, temporary / GRAPH, compress_to_fp16=False)
        describe(ConvertedImages(folder=temporary, head=reference.head))
    return ConvertedImages(folder=folder, head=reference.head)


def _graph(openvino: Any, reference: on_torch.TorchImages) -> Any:
    """Trace the model: pixels in, logits or vectors out; any number of images of the one size."""
    import torch

    assert reference.run_model is not None  # noqa: S101  # it isn't closed
    run: Run = reference.run_model

    class Traceable(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.model = run.model  # or its weights aren't seen

        def forward(self, pixel_values: Any) -> Any:
            return run(pixel_values)

    shape = reference.preparation.shape
    random = torch.Generator().manual_seed(0)
    example = torch.rand((EXAMPLES, *shape), generator=random)
    with warnings.catch_warnings():
        # As of texts: the comparison with torch would show what the tracer warns of.
        warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        graph = openvino.convert_model(Traceable().eval(), example_input={VALUES: example})
    graph.inputs[0].get_tensor().set_names({VALUES})
    graph.reshape({VALUES: openvino.PartialShape([-1, *shape])})
    return graph


def compare(engine: ImageEngine, reference: ImageEngine) -> Verdict:
    """Run both on the same images, in batches and each alone, as texts are compared.

    A label may differ where the reference's two best are as close as scores may differ: of images
    of noise a model with a thousand labels is sure of none.

    Raises:
        ConversionError: the engine can't run them.

    """
    batch = prepared(reference)
    expected = answers(reference, batch, at_once=CPU_BATCH)
    try:
        actual = answers(engine, batch, at_once=CPU_BATCH)
        alone = answers(engine, batch, at_once=1)
    except RowsRefusedError:
        actual = alone = np.full_like(expected, np.nan)
    except (RuntimeError, ValueError) as failure:
        reason = textwrap.shorten(str(failure), MAX_REASON_CHARS)
        raise ConversionError(f"the converted model can't run: {reason}") from failure
    figures = _figures(engine, expected, actual)
    unit = 1.0 if _is_bounded(engine) else max(1.0, float(np.abs(expected).max()))
    figures["batch_difference_max"] = float(np.abs(actual - alone).max()) / unit
    return Verdict(agrees=is_close(figures), figures=figures)


def _is_bounded(engine: ImageEngine) -> bool:
    """Say whether its numbers are probabilities."""
    return bool(engine.head.labels) and engine.activation is not Activation.NONE


def _figures(engine: ImageEngine, expected: FloatArray, actual: FloatArray) -> dict[str, float]:
    if not engine.head.labels:
        lengths = np.linalg.norm(actual, axis=1), np.linalg.norm(expected, axis=1)
        cosines = (actual * expected).sum(axis=1) / (lengths[0] * lengths[1])
        return {
            "cosine_min": float(cosines.min()),
            "length_difference_max": float(np.abs(lengths[0] / lengths[1] - 1).max()),
        }
    if not _is_bounded(engine):
        unit = max(1.0, float(np.abs(expected).max()))
        return {"score_difference_max": float(np.abs(actual - expected).max()) / unit}
    rows = np.arange(len(expected))
    lost = expected.max(axis=1) - expected[rows, actual.argmax(axis=1)]
    return {
        "labels_equal": float((lost <= MOST["score_difference_max"]).mean()),
        "score_difference_max": float(np.abs(actual - expected).max()),
    }
