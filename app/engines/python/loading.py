"""Makes an engine of the class that a catalogue entry names."""

import logging
from collections.abc import Callable
from time import monotonic
from typing import Final

from app.core.call_scope import CallScope, in_scope
from app.core.logs import configuration
from app.engines.base import EngineRequest
from app.engines.python.class_loading import load_class
from app.engines.python.engine import PythonEngine
from app.engines.python.failures import UserCodeError
from app.engines.python.messages import Start
from app.engines.python.model_process import MAX_LOAD_S
from app.engines.python.models import CallModel, call_nothing
from app.engines.python.process_runner import open_processes
from app.engines.python.runner import Runner

log = logging.getLogger(__name__)

PROCESS: Final = "process"
THREAD: Final = "thread"
OpenRunner = Callable[[Start, CallModel], Runner]


def load(request: EngineRequest, *, device: str) -> PythonEngine:
    """Import the class, make an object of it, and let it load: here, or in processes of its own.

    Raises:
        SourceError: there is no such class.
        UnsafeModelError: its file isn't the pinned one.
        UserCodeError: it can't be served; one line says why.

    """
    options = request.python
    assert options is not None  # noqa: S101  # models of this engine have them
    isolation = options.isolation or (PROCESS if device == "cpu" else THREAD)
    start = Start(
        name=request.name,
        device=device,
        labels=request.labels,
        options=options,
        logs=configuration(),
    )
    open_runner: OpenRunner = open_processes if isolation == PROCESS else load_class
    try:
        with in_scope(CallScope(until_s=monotonic() + MAX_LOAD_S)):
            runner = open_runner(start, request.call_model or call_nothing)
    except UserCodeError as failure:
        if failure.__cause__ is not None:
            fields = {"model": request.name}
            log.error("model_code_failed", exc_info=failure.__cause__, extra=fields)  # noqa: TRY400  # of the cause
        raise
    return PythonEngine(
        runner,
        name=request.name,
        device=device,
        workers=options.workers,
        streams=options.streams,
        uses=options.uses,
    )
