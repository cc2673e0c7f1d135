"""Makes sure that a model is converted and has been held against torch before it serves.

What needs torch runs in a child process, so that the service itself never holds torch's memory,
on its first start either.
"""

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from app.engines import torch
from app.engines.base import (
    EmbeddingOptions,
    EngineRequest,
    FloatArray,
    OnStep,
    OpenVinoOptions,
    Step,
    Task,
    ignore_step,
)
from app.engines.openvino.agreement import (
    Verdict,
    answers,
    calibration_texts,
    compare,
    read_verdict,
    verdict_file,
    write_verdict,
)
from app.engines.openvino.conversion import convert
from app.engines.openvino.converted import Converted, folder_of, options_of, read
from app.engines.openvino.engine import OpenVinoClassifier, OpenVinoEmbedder, open_engine
from app.engines.openvino.failures import ConversionError, InterruptedConversionError
from app.engines.openvino.processor import Processor
from app.engines.openvino.refused import file_of, raise_remembered, remember
from app.engines.torch_embedder import TorchEmbedder
from app.errors import EngineError, StartupError

log = logging.getLogger(__name__)

# Much longer than the largest model takes: only a hang is to be ended.
PREPARE_TIMEOUT_S = 900
KILLED = (-signal.SIGKILL, -signal.SIGTERM)
STARTUP_ERRORS: tuple[type[StartupError], ...] = (StartupError, *StartupError.__subclasses__())
REASONS = {kind.reason: kind for kind in STARTUP_ERRORS}
CONVERSION, INTERRUPTED = "conversion_failed", "conversion_interrupted"
CONVERSION_ERRORS = {CONVERSION: ConversionError, INTERRUPTED: InterruptedConversionError}
STEPS = ("waiting for its turn", "loading the weights", "converting", "comparing with torch")
WAITING, LOADING, CONVERTING, COMPARING = range(1, len(STEPS) + 1)
STEP = "step"  # of a line of the child's, beside which libraries may print others

OpenVinoText = OpenVinoClassifier | OpenVinoEmbedder
Reference = torch.TorchClassifier | TorchEmbedder
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
        # Killed, say for want of memory: that needn't be so the next time.
        error = InterruptedConversionError if child.returncode in KILLED else ConversionError
        raise error(f"the conversion ended with {child.returncode}: {last}") from None
    raise (CONVERSION_ERRORS.get(kind) or REASONS[kind])(message)


def _run_child(request: EngineRequest) -> subprocess.CompletedProcess[str]:
    """Run the child to its end, and pass its steps on as they come."""
    # The child imports from where this process does, and never from the working directory.
    program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
    command = [sys.executable, "-P", "-c", program, dump(request)]
    # Nothing is ever written: when this process ends, the child reads the end and ends too.
    read_end, write_end = os.pipe()
    try:
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
            subprocess.Popen(  # noqa: S603  # our own module
                command, stdin=read_end, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as child,
        ):
            late = threading.Timer(PREPARE_TIMEOUT_S, child.kill)
            late.daemon = True
            late.start()
            try:
                said = _follow(child, request.on_step)
            finally:
                is_late = not late.is_alive()
                late.cancel()
            if is_late:
                raise ConversionError(f"the conversion took longer than {PREPARE_TIMEOUT_S} s")
            errors.seek(0)
            return subprocess.CompletedProcess(command, child.wait(), said, errors.read())
    except OSError as failure:
        raise InterruptedConversionError(f"the conversion did not run: {failure}") from failure
    finally:
        os.close(read_end)
        os.close(write_end)


def _follow(child: subprocess.Popen[str], on_step: OnStep) -> str:
    """Read what the child prints until it ends; return the last line that is no step."""
    assert child.stdout is not None  # noqa: S101  # it is a pipe
    last = ""
    for line in child.stdout:
        try:
            on_step(_step(json.loads(line)[STEP]))
        except (ValueError, LookupError, TypeError):
            last = line
    child.wait()
    return last


def _step(number: int) -> Step:
    return Step(number=number, of=len(STEPS), name=STEPS[number - 1])


def load(request: EngineRequest, prepare: Prepare = prepare_in_child) -> OpenVinoText:
    """Load a classifier or an embedder, converting it first if that hasn't been done.

    Raises:
        DisagreementError: the converted model answers otherwise than torch.
        ConversionError: it can't be converted, or OpenVINO can't run it.
        EngineError: the task or the source are none of this engine's.

    """
    if request.task == Task.CHAT:
        raise EngineError("the OpenVINO engine has no chat models; use an engine that has")
    folder = folder_of(request)
    processor = Processor(options_of(request))
    prepared = find(request, folder, processor)
    if prepared is None:
        raise_remembered(request)
        log.info("model_converting", extra={"model": request.name, "folder": str(folder)})
        _prepare_once(request, prepare)
        prepared = find(request, folder, processor)
    if prepared is None:
        raise ConversionError(f"{folder}: not as it was left after the conversion")
    if not prepared.verdict.agrees:
        raise DisagreementError(prepared.verdict.figures)
    return compile_engine(request, prepared.converted, processor)


def _prepare_once(request: EngineRequest, prepare: Prepare) -> None:
    """Prepare; what would fail again at each start is remembered."""
    try:
        prepare(request)
    except ConversionError as failure:
        if failure.is_lasting:
            remember(request, failure)
        raise


def compile_engine(
    request: EngineRequest, converted: Converted, processor: Processor
) -> OpenVinoText:
    """Open the engine; what OpenVINO says against it becomes a ConversionError."""
    try:
        return open_engine(request, converted, processor)
    except (RuntimeError, ValueError) as failure:
        said = textwrap.shorten(str(failure), torch.MAX_REASON_CHARS)
        raise ConversionError(f"{converted.folder}: {said}") from failure


def hold(engine: OpenVinoText, expected: FloatArray, texts: Sequence[str]) -> Verdict:
    """Hold a converted model against what torch answers.

    Raises:
        ConversionError: it can't run one of the texts.

    """
    try:
        return compare(engine, expected, texts)
    except (RuntimeError, ValueError) as failure:
        said = textwrap.shorten(str(failure), torch.MAX_REASON_CHARS)
        raise ConversionError(f"the converted model can't run: {said}") from failure


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
        request.on_step(_step(WAITING))
        with FileLock(cache / ".lock", timeout=PREPARE_TIMEOUT_S):
            _prepare_alone(request, load_reference)
    except OSError as failure:
        raise InterruptedConversionError(f"{cache}: {failure}") from failure


def _prepare_alone(request: EngineRequest, load_reference: LoadReference) -> None:
    folder = folder_of(request)
    processor = Processor(options_of(request))
    if find(request, folder, processor):
        return
    request.on_step(_step(LOADING))
    reference = load_reference(request)
    request.on_step(_step(CONVERTING))
    converted = read(folder) or convert(reference, folder)
    request.on_step(_step(COMPARING))
    engine = compile_engine(request, converted, processor)
    texts = calibration_texts(request.adapter)
    verdict = hold(engine, answers(reference, texts), texts)
    write_verdict(_verdict_file(request, folder, processor), verdict)
    file_of(request).unlink(missing_ok=True)  # of other settings


def load_reference(request: EngineRequest) -> Reference:
    """Load the model on torch, in float32 on the CPU: what it is, before any engine."""
    options = options_of(request)
    found = torch.load(dataclasses.replace(request, device="cpu", threads=options.cores))
    assert isinstance(found, Reference)  # noqa: S101  # torch has no chat models
    return found


def dump(request: EngineRequest) -> str:
    """Return a request as JSON; `parse` is the way back."""
    # What steps are told to stays here: a copy of it in another process would tell nobody.
    fields = dataclasses.asdict(dataclasses.replace(request, on_step=ignore_step))
    del fields["on_step"]
    return json.dumps(fields, default=str)


def parse(text: str) -> EngineRequest:
    """Return the request that `dump` wrote."""
    fields: dict[str, Any] = json.loads(text)
    options, embedding = fields.pop("openvino"), fields.pop("embedding")
    for name in ("folder", "adapter"):
        fields[name] = Path(fields[name]) if fields[name] else None
    return EngineRequest(
        **fields
        | {
            "task": Task(fields["task"]),
            "labels": tuple(fields["labels"]),
            "embedding": EmbeddingOptions(**embedding | {"pooling": tuple(embedding["pooling"])}),
            "openvino": OpenVinoOptions(**options | {"cache": Path(options["cache"])}),
        }
    )


def main() -> None:
    """Prepare the request of the command line; an error is JSON on standard output."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        prepare(dataclasses.replace(parse(sys.argv[1]), on_step=_print_step), load_reference)
    except StartupError as failure:
        reason = failure.reason
        if isinstance(failure, ConversionError):
            reason = CONVERSION if failure.is_lasting else INTERRUPTED
        print(json.dumps({"reason": reason, "message": str(failure)}))  # noqa: T201
        sys.exit(1)


def _print_step(step: Step) -> None:
    print(json.dumps({STEP: step.number}), flush=True)  # noqa: T201


def _end_with_parent() -> None:
    # Not sys.stdin: its lock, held by this thread, would break the interpreter's own end.
    os.read(0, 1)
    os._exit(1)
