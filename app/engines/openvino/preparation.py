"""Converts a model and compares it with torch, once, with the lock of the cache."""

import dataclasses
import logging
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from app.engines import torch
from app.engines.base import EngineRequest, FloatArray, Step, Task
from app.engines.openvino.agreement import (
    Verdict,
    answers,
    calibration_texts,
    compare,
    read_verdict,
    verdict_file,
    write_verdict,
)
from app.engines.openvino.conversion import convert, plain_module
from app.engines.openvino.converted import Converted, describe, folder_of, options_of, read
from app.engines.openvino.engine import OpenVinoText, open_engine
from app.engines.openvino.failures import ConversionError, InterruptedConversionError
from app.engines.openvino.packed_graph import choose_packing
from app.engines.openvino.processor import Processor
from app.engines.openvino.refused import file_of
from app.engines.torch import Reference

log = logging.getLogger(__name__)

# Much longer than the largest model takes: only a hang is to be ended.
PREPARE_TIMEOUT_S = 900
STEPS = ("waiting for its turn", "loading the weights", "converting", "comparing with torch")
FLOAT32 = "f32"
WAITING, LOADING, CONVERTING, COMPARING = range(1, len(STEPS) + 1)
LoadReference = Callable[[EngineRequest], Reference]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A converted model and the verdict of the comparison with torch on such a processor."""

    converted: Converted
    verdict: Verdict


def step(number: int) -> Step:
    """Return a step by its number, the first being 1."""
    return Step(number=number, of=len(STEPS), name=STEPS[number - 1])


def compile_engine(
    request: EngineRequest, converted: Converted, processor: Processor
) -> OpenVinoText:
    """Open the engine; OpenVINO's errors become a ConversionError."""
    try:
        return open_engine(request, converted, processor)
    except (RuntimeError, ValueError) as failure:
        reason = textwrap.shorten(str(failure), torch.MAX_REASON_CHARS)
        raise ConversionError(f"{converted.folder}: {reason}") from failure


def compare_converted(engine: OpenVinoText, expected: FloatArray, texts: Sequence[str]) -> Verdict:
    """Compare a converted model with torch's answers.

    Raises:
        ConversionError: it can't run one of the texts.

    """
    try:
        return compare(engine, expected, texts)
    except (RuntimeError, ValueError) as failure:
        reason = textwrap.shorten(str(failure), torch.MAX_REASON_CHARS)
        raise ConversionError(f"the converted model can't run: {reason}") from failure


def convert_best(request: EngineRequest, reference: Reference, folder: Path) -> Converted:
    """Convert a model so that it runs texts in rows where it can, else in padded batches.

    Raises:
        ConversionError: OpenVINO can't convert it, or the folder can't be written.

    """
    packing = choose_packing(reference, plain_module(reference)) if request.is_packed else None
    if packing is None:
        return convert(reference, folder)
    try:
        return convert(reference, folder, packing=packing)
    except InterruptedConversionError:
        raise
    except ConversionError as failure:
        log.warning("packing_refused", extra={"model": request.name, "reason": failure.line})
        return convert(reference, folder)


def settle(
    request: EngineRequest,
    converted: Converted,
    processor: Processor,
    *,
    reference: Reference,
    expected: FloatArray,
) -> Prepared:
    """Compare a converted model with torch's answers.

    A token classifier that differs in bfloat16 is computed in float32. One that runs texts in rows
    and can't be run, or differs, is converted anew for padded batches.

    Raises:
        ConversionError: it can't be run, not in padded batches either.

    """
    texts = calibration_texts(request.adapter)
    try:
        verdict = compare_converted(compile_engine(request, converted, processor), expected, texts)
    except ConversionError as failure:
        if converted.packing is None:
            raise
        log.warning("packing_refused", extra={"model": request.name, "reason": failure.line})
    else:
        if not verdict.agrees and (exact := in_float32(request, converted, processor)):
            log.warning("bfloat16_refused", extra={"model": request.name, **verdict.figures})
            describe(exact)
            return settle(request, exact, processor, reference=reference, expected=expected)
        if verdict.agrees or converted.packing is None:
            return Prepared(converted=converted, verdict=verdict)
        log.warning("packing_refused", extra={"model": request.name, **verdict.figures})
    padded = convert(reference, converted.folder)
    return settle(request, padded, processor, reference=reference, expected=expected)


def in_float32(
    request: EngineRequest, converted: Converted, processor: Processor
) -> Converted | None:
    """Return a token classifier that differs as it is to be computed in float32.

    Of thousands of tokens the worst one counts, and some are on the edge of two labels: what is
    close enough for whole texts in bfloat16 often isn't for them. None: that is no way out.
    """
    is_one = request.task == Task.NER and processor.precision != FLOAT32
    if not is_one or converted.is_exact:
        return None
    return dataclasses.replace(converted, is_exact=True)


def find(request: EngineRequest, folder: Path, processor: Processor) -> Prepared | None:
    """Return what an earlier start prepared; None where a part of it is missing or damaged."""
    verdict = read_verdict(_verdict_file(request, folder, processor))
    converted = read(folder) if verdict else None
    return Prepared(converted=converted, verdict=verdict) if converted and verdict else None


def _verdict_file(request: EngineRequest, folder: Path, processor: Processor) -> Path:
    return verdict_file(folder, processor.precision, calibration_texts(request.adapter))


def prepare(request: EngineRequest, load_reference: LoadReference) -> None:
    """Convert the model and compare it with torch, unless another process has just done so.

    One process at a time does this in a cache: two replicas on one volume don't do it twice, and
    the memory of two conversions is never needed at once.

    Raises:
        StartupError: it can't be converted, or torch can't load it.

    """
    with locked(request):
        _prepare_alone(request, load_reference)


@contextmanager
def locked(request: EngineRequest) -> Iterator[None]:
    """Hold the cache's lock.

    Raises:
        InterruptedConversionError: it can't be had, or the cache can't be written.

    """
    cache = options_of(request).cache
    try:
        cache.mkdir(parents=True, exist_ok=True)
        request.on_step(step(WAITING))
        with FileLock(cache / ".lock", timeout=PREPARE_TIMEOUT_S):
            yield
    except OSError as failure:
        raise InterruptedConversionError(f"{cache}: {failure}") from failure


def _prepare_alone(request: EngineRequest, load_reference: LoadReference) -> None:
    folder = folder_of(request)
    processor = Processor(options_of(request))
    if find(request, folder, processor):
        return
    request.on_step(step(LOADING))
    reference = load_reference(request)
    request.on_step(step(CONVERTING))
    converted = read(folder) or convert_best(request, reference, folder)
    request.on_step(step(COMPARING))
    expected = answers(reference, calibration_texts(request.adapter))
    prepared = settle(request, converted, processor, reference=reference, expected=expected)
    write_verdict(_verdict_file(request, folder, processor), prepared.verdict)
    file_of(request).unlink(missing_ok=True)  # of other settings


def load_reference(request: EngineRequest) -> Reference:
    """Load the model on torch, in float32 on the CPU, as the reference of the comparison."""
    options = options_of(request)
    reference = torch.load(dataclasses.replace(request, device="cpu", threads=options.cores))
    assert isinstance(reference, Reference)  # noqa: S101  # torch has no chat models
    return reference
