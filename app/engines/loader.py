"""Chooses the engine for a model and loads it."""

import ctypes
import logging
from collections.abc import Callable, Mapping
from typing import Any

from app.engines import baked, fake, llama_cpp, preparation, torch
from app.engines.base import Engine, EngineRequest, Task
from app.engines.conversion import ConversionError
from app.engines.preparation import DisagreementError
from app.errors import EngineError

log = logging.getLogger(__name__)

Load = Callable[[EngineRequest], Engine]
OpenLibrary = Callable[[str], Any]

CUDA_DRIVERS = ("libcuda.so.1", "nvcuda.dll")


def load_engine(request: EngineRequest) -> Engine:
    """Load one model; blocks for as long as that takes.

    Raises:
        EngineError: the engine isn't known, or can't load this model.

    """
    engines: Mapping[str, Load] = {
        "auto": load_best,
        "torch": torch.load,
        "openvino": load_openvino,
        "llama_cpp": load_llama_cpp,
        "remote": load_remote,
        "fake": fake.load,
    }
    if request.engine not in engines:
        known = ", ".join(engines)
        raise EngineError(f"engine {request.engine!r} is not known; known are {known}")
    return engines[request.engine](request)


def load_llama_cpp(request: EngineRequest) -> Engine:
    """Load a GGUF file as a chat model."""
    generator = llama_cpp.load(request)
    from app.engines.chat import LocalChat

    assert request.chat is not None  # noqa: S101  # or it would not have loaded
    return LocalChat(generator, name=request.name)


def load_remote(request: EngineRequest) -> Engine:
    """Make a chat model of somebody else's server."""
    from app.engines import remote  # imports LangChain

    return remote.load(request)


def load_best(request: EngineRequest, *, has_gpu: Callable[[], bool] | None = None) -> Engine:
    """Load on torch where there is a GPU for it, else on OpenVINO, else on torch all the same."""
    if request.task == Task.CHAT:
        return load_llama_cpp(request)
    if request.openvino is None or (request.device != "cpu" and (has_gpu or torch_has_gpu)()):
        return torch.load(request)
    if request.device == "cuda":
        return torch.load(request)  # which says that there is none
    try:
        return load_openvino(request)
    except ConversionError as failure:
        log.warning("engine_fallback", extra=_facts(request) | {"reason": str(failure)})
        return torch.load(request)


def load_openvino(request: EngineRequest, *, load: Load = preparation.load) -> Engine:
    """Load on OpenVINO; on torch if OpenVINO answers otherwise than torch does.

    A baked model has nothing that torch could load: what is wrong with it is raised.
    """
    if baked.is_baked(request.folder):
        return baked.load(request)
    try:
        return load(request)
    except DisagreementError as failure:
        log.warning("engine_disagrees", extra=_facts(request) | dict(failure.figures))
        return torch.load(request)


def _facts(request: EngineRequest) -> dict[str, Any]:
    return {"model": request.name, "engine": "openvino", "instead": "torch"}


def torch_has_gpu() -> bool:
    """Say whether torch can use a GPU; torch itself is imported only where there is a driver."""
    return has_cuda_driver() and torch.has_cuda()


def has_cuda_driver(open_library: OpenLibrary = ctypes.CDLL) -> bool:
    """Say whether NVIDIA's driver is there and shows a device, without importing torch.

    CUDA_VISIBLE_DEVICES counts: a hidden device is none.
    """
    for name in CUDA_DRIVERS:
        try:
            driver = open_library(name)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value > 0
    return False
