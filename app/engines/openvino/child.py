"""Prepares a model in a child process, so that the service itself never holds torch's memory."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from app.engines.base import (
    IMAGE_TASKS,
    EmbeddingOptions,
    EngineRequest,
    ImageOptions,
    OnStep,
    OpenVinoOptions,
    Step,
    Task,
    ignore_step,
)
from app.engines.openvino.failures import ConversionError, InterruptedConversionError
from app.engines.openvino.preparation import PREPARE_TIMEOUT_S, load_reference, prepare, step
from app.errors import StartupError

KILLED = (-signal.SIGKILL, -signal.SIGTERM)
STARTUP_ERRORS: tuple[type[StartupError], ...] = (StartupError, *StartupError.__subclasses__())
REASONS = {kind.reason: kind for kind in STARTUP_ERRORS}
CONVERSION, INTERRUPTED = "conversion_failed", "conversion_interrupted"
CONVERSION_ERRORS = {CONVERSION: ConversionError, INTERRUPTED: InterruptedConversionError}
STEP = "step"  # in lines of the child; libraries may print others


def prepare_in_child(request: EngineRequest) -> None:
    """Run `prepare` in a process of its own, and wait for it.

    Raises:
        StartupError: of the class that the child raised.

    """
    child = _run_child(request)
    if child.returncode == 0:
        return
    try:
        report = json.loads(child.stdout.splitlines()[-1])  # libraries may print above it
        kind, message = report["reason"], report["message"]
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
    # Nothing is written to it: when this process ends, the child reads EOF and ends too.
    read_end, write_end = os.pipe()
    try:
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
            subprocess.Popen(  # noqa: S603  # our own module
                command, stdin=read_end, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as child,
        ):
            timer = threading.Timer(PREPARE_TIMEOUT_S, child.kill)
            timer.daemon = True
            timer.start()
            try:
                output = _follow(child, request.on_step)
            finally:
                is_late = not timer.is_alive()
                timer.cancel()
            if is_late:
                raise ConversionError(f"the conversion took longer than {PREPARE_TIMEOUT_S} s")
            errors.seek(0)
            return subprocess.CompletedProcess(command, child.wait(), output, errors.read())
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
            on_step(step(json.loads(line)[STEP]))
        except (ValueError, LookupError, TypeError):
            last = line
    child.wait()
    return last


def dump(request: EngineRequest) -> str:
    """Return a request as JSON; `parse` is the way back."""
    # The callback stays here: in another process a copy of it would have no effect.
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
            "images": ImageOptions(**fields["images"]),
            "openvino": OpenVinoOptions(**options | {"cache": Path(options["cache"])}),
        }
    )


def main() -> None:
    """Prepare the request of the command line; an error is JSON on standard output."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        prepare_any(dataclasses.replace(parse(sys.argv[1]), on_step=_print_step))
    except StartupError as failure:
        reason = failure.reason
        if isinstance(failure, ConversionError):
            reason = CONVERSION if failure.is_lasting else INTERRUPTED
        print(json.dumps({"reason": reason, "message": str(failure)}))  # noqa: T201
        sys.exit(1)


def prepare_any(request: EngineRequest) -> None:
    """Prepare a model of texts or of images."""
    if request.task in IMAGE_TASKS:
        from app.engines.images import conversion

        conversion.prepare(request)
    else:
        prepare(request, load_reference)


def _print_step(step: Step) -> None:
    print(json.dumps({STEP: step.number}), flush=True)  # noqa: T201


def _end_with_parent() -> None:
    # Not sys.stdin: its lock, held by this thread, would break the interpreter's own end.
    os.read(0, 1)
    os._exit(1)
