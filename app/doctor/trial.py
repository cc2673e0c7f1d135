"""Tries to load a model in a process of its own: what crashes or hangs there ends no report."""

import dataclasses
import json
import logging
import os
import sys
import time

from app.core.finding import Finding, bad, doubtful, good
from app.doctor.child import ChildDiedError, ChildTimeoutError, ask_child
from app.engines.base import IMAGE_TASKS, Engine, EngineRequest, Task
from app.engines.images.conversion import find as find_images
from app.engines.llama_cpp.server import is_gguf
from app.engines.loader import load_engine
from app.engines.openvino.baked import is_baked
from app.engines.openvino.converted import folder_of, options_of
from app.engines.openvino.preparation import find
from app.engines.openvino.processor import Processor
from app.engines.openvino.refused import raise_remembered
from app.engines.python.failures import UserCodeError
from app.engines.python.models import NOT_SERVED
from app.errors import StartupError
from app.models.bake import ENGINES
from app.models.catalog import Catalog, ModelSpec, read_catalog
from app.models.loading import warm
from app.runtime.parts import make_loader
from app.settings import Settings, load_settings

MEND = "Mend its entry, or what it names; docs/models.md has the fields."
TORCH, OPENVINO = "torch", "openvino"
CALLS_MODELS = "its load calls other models, which only a service has: it was not loaded here"
UNCONVERTED = "; the first start will convert it"


def try_model(spec: ModelSpec, *, timeout_s: float) -> Finding:
    """Load a model of the catalogue as a start would, but convert nothing; write nothing."""
    place = f"model {spec.name}"
    try:
        report = ask_child(__name__, spec.name, timeout_s=timeout_s)
    except ChildTimeoutError as failure:
        advice = "Wait longer with --load-timeout, or see what holds it up."
        return doubtful(place, failure.line, advice)
    except ChildDiedError as failure:
        return bad(place, failure.line, MEND)
    if report.get("failure", "").endswith(NOT_SERVED):
        return doubtful(place, CALLS_MODELS, "Start the service to see.")
    if "failure" in report:
        return bad(place, report["failure"], MEND)
    return good(place, report["loaded"])


def main() -> None:
    """Load the model that the command line names; print how that went as JSON, and end."""
    logging.getLogger("app").addHandler(logging.NullHandler())  # the report has what is to be said
    try:
        report = {"loaded": _load(sys.argv[1])}
    except StartupError as failure:
        report = {"failure": explain(failure)}
    except Exception as failure:  # noqa: BLE001  # as the registry says of what libraries raise
        report = {"failure": StartupError(f"{type(failure).__name__}: {failure}").line}
    print(json.dumps(report), flush=True)  # noqa: T201
    os._exit(0)  # without waiting for threads of engines


def explain(failure: StartupError) -> str:
    """Return what failed; of a Python class with the message, which only operators may see."""
    cause = failure.__cause__
    if isinstance(failure, UserCodeError) and cause is not None:
        return StartupError(f"{failure.line}: {type(cause).__name__}: {cause}").line
    return failure.line


def _load(name: str) -> str:
    """Load and warm the model; return what was loaded."""
    settings = load_settings(Settings)
    catalog = read_catalog(settings.models_file)
    spec = catalog.to_load(name)
    if spec is None:
        raise StartupError("the catalogue has changed meanwhile")
    began_s = time.monotonic()
    engine, version, note = load_unconverted(settings, catalog, spec)
    seconds = time.monotonic() - began_s
    source = f"{spec.source}, " if spec.source else ""
    return f"{source}version {version}, {engine.kind}, loaded in {seconds:.1f} s{note}"


def load_unconverted(
    settings: Settings, catalog: Catalog, spec: ModelSpec
) -> tuple[Engine, str, str]:
    """Load and warm a model without writing anything: one that a start would convert, on torch.

    Returns:
        The engine, its version, and a note where a start would convert it.

    Raises:
        StartupError: as a start does.

    """
    request, version = make_loader(settings, catalog).request(spec)
    is_converted = not _would_convert(request)
    engine = load_engine(request if is_converted else dataclasses.replace(request, engine=TORCH))
    warm(engine)
    return engine, getattr(engine, "version", version), "" if is_converted else UNCONVERTED


def _would_convert(request: EngineRequest) -> bool:
    """Return whether a start would convert this model first, which takes most of a minute.

    Raises:
        ConversionError: OpenVINO is asked for by name, and the last conversion failed.

    """
    folder = request.folder
    if request.task == Task.CHAT or request.engine not in ENGINES or is_baked(folder):
        return False
    if folder is None or not folder.is_dir() or is_gguf(folder):
        return False  # the engine says so
    if _is_prepared(request):
        return False
    if request.engine == OPENVINO:
        raise_remembered(request)
    return True


def _is_prepared(request: EngineRequest) -> bool:
    """Return whether an earlier start converted this model."""
    folder, processor = folder_of(request), Processor(options_of(request))
    if request.task in IMAGE_TASKS:
        return find_images(folder, processor) is not None
    return find(request, folder, processor) is not None
