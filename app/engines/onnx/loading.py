"""Opens an `.onnx` file with ONNX Runtime, which is an extra, and makes an engine of it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from app.engines.base import EngineRequest
from app.engines.devices import check_cuda, count_cuda, index_of, is_cuda
from app.engines.onnx.engine import OnnxEngine
from app.engines.onnx.graph import read_graph
from app.engines.onnx.tensors import Array
from app.engines.onnx.trial import choose_stacking
from app.errors import EngineError, SourceError

SUFFIX: Final = ".onnx"
NOT_INSTALLED: Final = "ONNX Runtime is not installed: pip install 'ml-api[onnx]'"
CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
# Of messages: "[ONNXRuntimeError] : 10 : INVALID_GRAPH : Load model from … failed:…".
LIBRARY: Final = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
# It prints what it raises as well, with the values of inputs; the log has what is to be said.
FATAL_ONLY: Final = 4


def load(request: EngineRequest) -> OnnxEngine:
    """Open the graph, and call it with a few made-up items.

    Raises:
        SourceError: the source isn't one `.onnx` file.
        EngineError: ONNX Runtime is missing, or can't open the graph, or its types have no form
            in JSON.

    """
    path = find_graph(request.folder)
    session = _open(path, request)
    try:
        whole = read_graph(session.get_inputs(), session.get_outputs())
    except EngineError as refused:
        raise EngineError(f"{path.name}: {refused}") from None

    def call(feeds: Mapping[str, Array]) -> Sequence[Any]:
        outputs: Sequence[Any] = session.run(None, dict(feeds))
        return outputs

    return OnnxEngine(
        choose_stacking(whole, call, name=request.name),
        call,
        device=_device(request, session.get_providers()),
        workers=request.openvino.calls if request.openvino else 1,
        labels=request.labels,
    )


def find_graph(source: Path | None) -> Path:
    """Return the one `.onnx` file of a source, which is that file or its folder.

    Raises:
        SourceError: it is another file, or there are none or several.

    """
    if source is None:
        raise SourceError("the entry names no source")
    if source.is_file():
        if source.suffix != SUFFIX:
            raise SourceError(f"{source}: is no {SUFFIX} file")
        return source
    names = sorted(str(file.relative_to(source)) for file in source.rglob(f"*{SUFFIX}"))
    if not names:
        raise SourceError(f"{source}: has no {SUFFIX} file")
    if len(names) > 1:
        raise SourceError(
            f"{source}: has several graphs ({', '.join(names)}); let source name one of them"
        )
    return source / names[0]


def _open(path: Path, request: EngineRequest) -> Any:  # noqa: ANN401  # untyped library
    """Return a session.

    Raises:
        EngineError: the library is missing, can't open the file, or has no such device.

    """
    try:
        import onnxruntime
    except ImportError as failure:
        raise EngineError(NOT_INSTALLED) from failure

    onnxruntime.set_default_logger_severity(FATAL_ONLY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    options.intra_op_num_threads = request.threads
    options.inter_op_num_threads = 1
    # Threads that wait for work mustn't take the cores of the event loop.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        available = onnxruntime.get_available_providers()
        gpus = count_cuda() if is_cuda(request.device) else 0
        providers = choose_providers(request, available, gpus=gpus)
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except EngineError:
        raise
    except Exception as failure:
        message = LIBRARY.sub("", str(failure))
        raise EngineError(f"ONNX Runtime can't open {path.name}: {message}") from failure
    if is_cuda(request.device) and CUDA not in session.get_providers():
        raise EngineError("ONNX Runtime can't use the GPU; its CUDA libraries are missing")
    return session


def _device(request: EngineRequest, providers: Sequence[str]) -> str:
    if CUDA not in providers:
        return "cpu"
    return request.device if is_cuda(request.device) else "cuda"


def choose_providers(
    request: EngineRequest, available: Sequence[str], *, gpus: int
) -> list[str | tuple[str, dict[str, int]]]:
    """Return what is to compute, by preference.

    Args:
        request: says where.
        available: what this build of ONNX Runtime has a part for.
        gpus: how many this machine has.

    Raises:
        EngineError: a GPU is asked for that isn't there, or that this build has no part for.

    """
    if request.device == "cpu":
        return [CPU]
    # ONNX Runtime would say of a GPU that isn't there, in a page of text, that a call failed.
    check_cuda(request.device, asked_by=request.device_setting, count=gpus)
    if is_cuda(request.device) and CUDA not in available:
        raise EngineError("this ONNX Runtime can't use a GPU: install onnxruntime-gpu instead")
    index = index_of(request.device)
    if index is not None:
        return [(CUDA, {"device_id": index}), CPU]
    return [provider for provider in (CUDA, CPU) if provider in available]
