"""Makes sure that a model is converted and has been held against torch before it serves.

What needs torch runs in a child process, so that the service itself never holds torch's memory,
on its first start either.
"""

import dataclasses
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from app.engines import torch
from app.engines.agreement import (
    Verdict,
    answers,
    calibration_texts,
    compare,
    read_verdict,
    verdict_file,
    write_verdict,
)
from app.engines.base import EngineRequest, OpenVinoOptions, Task
from app.engines.conversion import ConversionError, Converted, convert, folder_of, options_of, read
from app.engines.openvino import OpenVinoClassifier, OpenVinoEmbedder, open_engine
from app.engines.processor import Processor
from app.errors import EngineError, StartupError

log = logging.getLogger(__name__)

# Much longer than the largest model takes: only a hang is to be ended.
PREPARE_TIMEOUT_S = 900
STARTUP_ERRORS: tuple[type[StartupError], ...] = (StartupError, *StartupError.__subclasses__())
REASONS = {kind.reason: kind for kind in STARTUP_ERRORS}
CONVERSION = "conversion_failed"

OpenVinoText = OpenVinoClassifier | OpenVinoEmbedder
Reference = torch.TorchClassifier | torch.TorchEmbedder
LoadReference = Callable[[EngineRequest], Reference]
Prepare = Callable[[EngineRequest], None]


class DisagreementError(ConversionError):
    """The converted model answers otherwise than the one it was made of."""

    def __init__(self, figures: Mapping[str, float]) -> None:
        self.figures = figures
        said = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        super().__init__(f"the converted model disagrees with torch: {said}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A converted model and what the comparison with torch said of it on such a processor."""

    converted: Converted
    verdict: Verdict


def prepare_in_child(request: EngineRequest) -> None:
    """Run `prepare` in a process of its own, and wait for it.

    Raises:
        StartupError: of the kind that the child met.

    """
    child = _run_child(request)
    if child.returncode == 0:
        return
    try:
        said = json.loads(child.stdout.splitlines()[-1])  # libraries may print above it
        kind, message = said["reason"], said["message"]
    except (ValueError, LookupError, TypeError):
        last = (child.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ConversionError(f"the conversion ended with {child.returncode}: {last}") from None
    raise (ConversionError if kind == CONVERSION else REASONS[kind])(message)


def _run_child(request: EngineRequest) -> subprocess.CompletedProcess[str]:
    # The child imports from where this process does, and never from the working directory.
    program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
    # Nothing is ever written: when this process ends, the child reads the end and ends too.
    read_end, write_end = os.pipe()
    try:
        return subprocess.run(  # noqa: S603  # our own module
            [sys.executable, "-P", "-c", program, dump(request)],
            stdin=read_end,
            capture_output=True,
            text=True,
            check=False,
            timeout=PREPARE_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise ConversionError(f"the conversion did not run: {failure}") from failure
    finally:
        os.close(read_end)
        os.close(write_end)


def load(request: EngineRequest, prepare: Prepare = prepare_in_child) -> OpenVinoText:
    """Load a classifier or an embedder, converting it first if that hasn't been done.

    Raises:
        DisagreementError: the converted model answers otherwise than torch.
        ConversionError: it can't be converted, or OpenVINO can't run it.
        EngineError: the task or the source are none of this engine's.

    """
    if request.task is Task.CHAT:
        raise EngineError("the OpenVINO engine has no chat models; use an engine that has")
    folder = folder_of(request)
    processor = Processor(options_of(request))
    prepared = find(request, folder, processor)
    if prepared is None:
        log.info("model_converting", extra={"model": request.name, "folder": str(folder)})
        prepare(request)
        prepared = find(request, folder, processor)
    if prepared is None:
        raise ConversionError(f"{folder}: not as it was left after the conversion")
    if not prepared.verdict.agrees:
        raise DisagreementError(prepared.verdict.figures)
    return compile_engine(request, prepared.converted, processor)


def compile_engine(
    request: EngineRequest, converted: Converted, processor: Processor
) -> OpenVinoText:
    """Open the engine; what OpenVINO says against it becomes a ConversionError."""
    try:
        return open_engine(request, converted, processor)
    except (RuntimeError, ValueError) as failure:
        raise ConversionError(f"{converted.folder}: {failure}") from failure


def find(request: EngineRequest, folder: Path, processor: Processor) -> Prepared | None:
    """Return what an earlier start has left; None where a part of it is missing or damaged."""
    verdict = read_verdict(_verdict_file(request, folder, processor))
    converted = read(folder) if verdict else None
    return Prepared(converted=converted, verdict=verdict) if converted and verdict else None


def _verdict_file(request: EngineRequest, folder: Path, processor: Processor) -> Path:
    return verdict_file(folder, processor.precision, calibration_texts(request.adapter))


def prepare(request: EngineRequest, load_reference: LoadReference) -> None:
    """Convert the model and hold it against torch, unless another process has just done so.

    One process at a time does this in a cache: two replicas on one volume don't do it twice, and
    the memory of two conversions is never needed at once.

    Raises:
        StartupError: as `load` says, and whatever torch finds wrong with the model.

    """
    cache = options_of(request).cache
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / ".lock", timeout=PREPARE_TIMEOUT_S):
            _prepare_alone(request, load_reference)
    except OSError as failure:
        raise ConversionError(f"{cache}: {failure}") from failure


def _prepare_alone(request: EngineRequest, load_reference: LoadReference) -> None:
    folder = folder_of(request)
    processor = Processor(options_of(request))
    if find(request, folder, processor):
        return
    reference = load_reference(request)
    converted = read(folder) or convert(reference, folder)
    engine = compile_engine(request, converted, processor)
    texts = calibration_texts(request.adapter)
    verdict = compare(engine, answers(reference, texts), texts)
    write_verdict(_verdict_file(request, folder, processor), verdict)


def load_reference(request: EngineRequest) -> Reference:
    """Load the model on torch, in float32 on the CPU: what it is, before any engine."""
    options = options_of(request)
    found = torch.load(dataclasses.replace(request, device="cpu", threads=options.cores))
    assert isinstance(found, Reference)  # noqa: S101  # torch has no chat models
    return found


def dump(request: EngineRequest) -> str:
    """Return a request as JSON; `parse` is the way back."""
    return json.dumps(dataclasses.asdict(request), default=str)


def parse(text: str) -> EngineRequest:
    """Return the request that `dump` wrote."""
    fields: dict[str, Any] = json.loads(text)
    options = fields.pop("openvino")
    for name in ("folder", "adapter"):
        fields[name] = Path(fields[name]) if fields[name] else None
    return EngineRequest(
        **fields
        | {
            "task": Task(fields["task"]),
            "labels": tuple(fields["labels"]),
            "openvino": OpenVinoOptions(**options | {"cache": Path(options["cache"])}),
        }
    )


def main() -> None:
    """Prepare the request of the command line; an error is JSON on standard output."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        prepare(parse(sys.argv[1]), load_reference)
    except StartupError as failure:
        reason = CONVERSION if isinstance(failure, ConversionError) else failure.reason
        print(json.dumps({"reason": reason, "message": str(failure)}))  # noqa: T201
        sys.exit(1)


def _end_with_parent() -> None:
    # Not sys.stdin: its lock, held by this thread, would break the interpreter's own end.
    os.read(0, 1)
    os._exit(1)
