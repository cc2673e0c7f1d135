"""Makes an engine of the class that a catalogue entry names."""

import logging
from collections.abc import Callable
from typing import Final

from app.core.logs import configuration
from app.engines.base import EngineRequest
from app.engines.python.class_loading import load_class
from app.engines.python.engine import PythonEngine
from app.engines.python.failures import UserCodeError
from app.engines.python.messages import Start
from app.engines.python.process_runner import open_processes
from app.engines.python.runner import Runner

log = logging.getLogger(__name__)

PROCESS: Final = "process"
THREAD: Final = "thread"


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
    open_runner: Callable[[Start], Runner] = open_processes if isolation == PROCESS else load_class
    try:
        runner = open_runner(start)
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
    )
