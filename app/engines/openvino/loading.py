"""Loads a model on OpenVINO, and has it prepared first where that hasn't been done."""

import logging
from collections.abc import Callable

from app.engines.base import EngineRequest, Task
from app.engines.openvino.child import prepare_in_child
from app.engines.openvino.converted import folder_of, options_of
from app.engines.openvino.engine import OpenVinoText
from app.engines.openvino.failures import ConversionError, DisagreementError
from app.engines.openvino.preparation import compile_engine, find
from app.engines.openvino.processor import Processor
from app.engines.openvino.refused import raise_remembered, remember
from app.errors import EngineError

log = logging.getLogger(__name__)

Prepare = Callable[[EngineRequest], None]


def load(request: EngineRequest, prepare: Prepare = prepare_in_child) -> OpenVinoText:
    """Load a classifier, of texts or tokens, or an embedder, and convert it first where needed.

    Raises:
        DisagreementError: the converted model's answers differ from torch's.
        ConversionError: it can't be converted, or OpenVINO can't run it.
        EngineError: this engine has no such task or source.

    """
    if request.task == Task.CHAT:
        raise EngineError("the OpenVINO engine has no chat models; use an engine that has")
    folder = folder_of(request)
    processor = Processor(options_of(request))
    prepared = find(request, folder, processor)
    if prepared is None:
        raise_remembered(request)
        log.info("model_converting", extra={"model": request.name, "folder": str(folder)})
        prepare_once(request, prepare)
        prepared = find(request, folder, processor)
    if prepared is None:
        raise ConversionError(f"{folder}: not as it was left after the conversion")
    if not prepared.verdict.agrees:
        raise DisagreementError(prepared.verdict.figures)
    return compile_engine(request, prepared.converted, processor)


def prepare_once(request: EngineRequest, prepare: Prepare) -> None:
    """Prepare; what would fail again at each start is remembered."""
    try:
        prepare(request)
    except ConversionError as failure:
        if failure.is_lasting:
            remember(request, failure)
        raise
