"""A converted model that serves without torch: its folder holds torch's answers too.

`preparation` converts on the machine that serves. A baked model was converted where torch was, for
an image that has none; on a processor that computes in another precision than the one it was baked
on, it is compared with those answers.
"""

import logging
from pathlib import Path

import numpy as np

from app.engines.base import EmbeddingOptions, EngineRequest, FloatArray
from app.engines.openvino.agreement import (
    CALIBRATION_NAME,
    Verdict,
    answers,
    calibration_texts,
    compare,
    read_verdict,
    verdict_file,
    write_verdict,
)
from app.engines.openvino.converted import options_of, read
from app.engines.openvino.engine import OpenVinoText
from app.engines.openvino.failures import ConversionError, DisagreementError
from app.engines.openvino.preparation import (
    LoadReference,
    compile_engine,
    convert_best,
    in_float32,
    load_reference,
    settle,
)
from app.engines.openvino.processor import Processor
from app.errors import EngineError

log = logging.getLogger(__name__)

REFERENCE = "reference.npy"


def is_baked(folder: Path | None) -> bool:
    """Say whether `bake` has made this folder."""
    return folder is not None and (folder / REFERENCE).is_file()


def bake(
    request: EngineRequest, folder: Path, *, load_reference: LoadReference = load_reference
) -> None:
    """Convert a model with torch, compare the two, and write all that serving it takes.

    Args:
        request: with the model as it came, and its adapter.
        folder: is made.
        load_reference: loads the model on torch.

    Raises:
        DisagreementError: the converted model's answers differ from torch's.
        StartupError: as `convert` says, and whatever torch finds wrong with the model.

    """
    assert request.folder is not None  # noqa: S101  # load_reference refuses it
    texts = calibration_texts(request.adapter)
    reference = load_reference(request)
    expected = answers(reference, texts)
    processor = Processor(options_of(request))
    converted = convert_best(request, reference, folder)
    prepared = settle(request, converted, processor, reference=reference, expected=expected)
    if not prepared.verdict.agrees:
        raise DisagreementError(prepared.verdict.figures)
    (folder / CALIBRATION_NAME).write_text("\n".join(texts) + "\n", encoding="utf-8")
    np.save(folder / REFERENCE, expected)
    write_verdict(verdict_file(folder, processor.precision, texts), prepared.verdict)


def load(request: EngineRequest) -> OpenVinoText:
    """Load a baked model; nothing is written.

    Raises:
        DisagreementError: on this processor its answers differ from torch's.
        ConversionError: its folder isn't as `bake` left it, or OpenVINO can't run it.

    """
    assert request.folder is not None  # noqa: S101  # it is baked
    if request.embedding != EmbeddingOptions():
        raise EngineError(
            f"{request.folder}: pooling, normalize, prompts and dimensions are baked in; remove"
            " them from the catalogue, and bake again with others"
        )
    converted = read(request.folder)
    if converted is None:
        raise ConversionError(f"{request.folder}: not as it was left when it was baked")
    if converted.packing is not None and not request.is_packed:
        raise EngineError(f"{request.folder}: packed is baked in; bake again with packed = false")
    processor = Processor(options_of(request))
    engine = compile_engine(request, converted, processor)
    texts = calibration_texts(request.folder)
    verdict = read_verdict(verdict_file(request.folder, processor.precision, texts))
    if verdict is None:
        verdict = _compare(request, engine, texts)
    if not verdict.agrees and (exact := in_float32(request, converted, processor)):
        engine = compile_engine(request, exact, processor)
        verdict = _compare(request, engine, texts)
    if not verdict.agrees:
        raise DisagreementError(verdict.figures)
    return engine


def _compare(request: EngineRequest, engine: OpenVinoText, texts: list[str]) -> Verdict:
    """Compare it with the answers in its folder, on a processor without a verdict."""
    assert request.folder is not None  # noqa: S101  # it is baked
    try:
        expected: FloatArray = np.load(request.folder / REFERENCE, allow_pickle=False)
        verdict = compare(engine, expected, texts)
    except (OSError, ValueError, EOFError) as failure:
        raise ConversionError(f"{request.folder / REFERENCE}: {failure}") from failure
    log.info("model_compared", extra={"model": request.name, **verdict.figures})
    return verdict
