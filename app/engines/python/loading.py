"""Makes an engine of the class that a catalogue entry names."""

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, Final

from app.core.call_scope import CallScope, in_scope
from app.core.logs import configuration
from app.engines.base import EngineRequest
from app.engines.python.contract import Contract, read_contract
from app.engines.python.engine import PythonEngine
from app.engines.python.failures import UserCodeError, during_load
from app.engines.python.finding import FoundClass, find_class
from app.engines.python.json_forms import JsonForm
from app.engines.python.messages import Start
from app.engines.python.model_process import MAX_LOAD_S
from app.engines.python.models import ATTRIBUTE, CallModel, Models, call_nothing
from app.engines.python.output import Output
from app.engines.python.process_runner import open_processes
from app.engines.python.runner import Facts, Runner, ThreadRunner

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


def load_class(start: Start, call_model: CallModel) -> ThreadRunner:
    """Import the class and make an object of it, in this process; raises as `load`."""
    options = start.options
    with Output(start.name, shows_output=options.shows_output).caught():
        found = find_class(options.source, base=options.base, pins=options.pins, name=start.name)
        contract = read_contract(found.kind)
        instance = _instance(found, start.device, Models(options.uses, call_model))
        facts = _facts(instance, contract, found, labels=start.labels)
    return ThreadRunner(
        instance,
        contract,
        facts,
        name=start.name,
        file=found.file,
        shows_output=options.shows_output,
    )


def _instance(found: FoundClass, device: str, models: Models) -> Any:  # noqa: ANN401  # of any class
    """Make an object, give it its models, and call its `load`, with the device if it takes one."""
    instance = during_load(f"{found.kind.__name__}()", found.kind, file=found.file)
    # Without any it says so to a class that calls one; a class may have an attribute of that name.
    if models or not hasattr(instance, ATTRIBUTE):
        try:
            setattr(instance, ATTRIBUTE, models)
        except Exception as refused:
            if models:
                raise UserCodeError(
                    f"{found.kind.__name__} takes no attribute {ATTRIBUTE}, which `uses` needs"
                ) from refused
    method = getattr(instance, "load", None)
    if method is not None:
        arguments = (device,) if inspect.signature(method).parameters else ()
        during_load("load", lambda: method(*arguments), file=found.file)
    return instance


def _facts(
    instance: Any,  # noqa: ANN401  # of any class
    contract: Contract,
    found: FoundClass,
    *,
    labels: Sequence[str],
) -> Facts:
    """Return what the object says of itself; the entry's labels come before its own.

    Raises:
        UserCodeError: its labels or its version aren't texts.

    """
    own = during_load("labels", lambda: _texts(getattr(instance, "labels", ())), file=found.file)
    version = during_load(
        "version", lambda: getattr(instance, "version", found.version), file=found.file
    )
    if own is None:
        raise UserCodeError("labels is to be a list of texts")
    if not isinstance(version, str) or not version:
        raise UserCodeError("version is to be a text")
    return Facts(
        item_schema=contract.item.schema(of_answers=False),
        answer_schema=contract.answer.schema(of_answers=True),
        labels=tuple(labels) or own,
        version=version,
        takes_batches=contract.takes_batches,
        has_check=hasattr(instance, "check"),
        has_cost=hasattr(instance, "cost"),
        stream_item_schema=_schema(contract.stream_item, of_answers=False),
        piece_schema=_schema(contract.piece, of_answers=True),
    )


def _schema(form: JsonForm | None, *, of_answers: bool) -> Mapping[str, Any] | None:
    return None if form is None else form.schema(of_answers=of_answers)


def _texts(labels: Any) -> tuple[str, ...] | None:  # noqa: ANN401  # whatever the class has there
    """Return labels as a tuple; None where they aren't texts."""
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        return None
    texts = tuple(labels)
    return texts if all(isinstance(text, str) for text in texts) else None
