"""Chooses the engine for a model and loads it."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from app.engines import fake, torch
from app.engines.base import CLASSIFYING, IMAGE_TASKS, Engine, EngineRequest, Task
from app.engines.devices import check_cuda, check_name, count_cuda, has_cuda_driver, is_cuda
from app.engines.llama_cpp import loading as llama_cpp
from app.engines.llama_cpp.server import is_gguf
from app.engines.openvino import baked, loading
from app.engines.openvino.failures import ConversionError, DisagreementError
from app.errors import EngineError

log = logging.getLogger(__name__)

Load = Callable[[EngineRequest], Engine]

ENGINE_GROUP = "ml_api.engines"  # of other packages' entry points


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKind:
    """An engine as models.toml names it.

    Args:
        name: in the catalogue.
        load: loads one model; blocks.
        tasks: that it runs.
        has_files: whether its models are files that their `source` names.
        has_gpu: whether it can compute on a GPU.
        is_shared: whether front ends can share its models for texts: they have a tokeniser as
            `app/sharing/encoders.py` knows them, and their rows are numbers.

    """

    name: str
    load: Load
    tasks: frozenset[str]
    has_files: bool = True
    has_gpu: bool = True
    is_shared: bool = False


@cache
def known_engines() -> Mapping[str, EngineKind]:
    """Return the engines of this package and those that others bring, by name.

    Another package brings an `EngineKind` with an entry point of the group `ml_api.engines`. Our
    own names win: what a catalogue means doesn't depend on other packages.
    """
    kinds = {kind.name: kind for kind in _own_engines()}
    for point in sorted(entry_points(group=ENGINE_GROUP)):
        kind: EngineKind = point.load()
        kinds.setdefault(kind.name, kind)
    return kinds


def _own_engines() -> tuple[EngineKind, ...]:
    texts = CLASSIFYING | {Task.NER, Task.EMBEDDING}
    chat = frozenset({Task.CHAT})
    return (
        EngineKind(name="auto", load=load_best, tasks=texts | chat | IMAGE_TASKS, is_shared=True),
        EngineKind(name="torch", load=load_torch, tasks=texts | IMAGE_TASKS, is_shared=True),
        EngineKind(
            name="openvino",
            load=load_openvino,
            tasks=texts | IMAGE_TASKS,
            has_gpu=False,
            is_shared=True,
        ),
        EngineKind(
            name="llama_cpp", load=load_llama_cpp, tasks=chat | {Task.EMBEDDING, Task.RANKING}
        ),
        EngineKind(
            name="remote",
            load=load_remote,
            tasks=chat | {Task.EMBEDDING, Task.RANKING},
            has_files=False,
        ),
        EngineKind(
            name="python", load=load_python, tasks=frozenset({Task.PYTHON}), has_files=False
        ),
        EngineKind(name="onnx", load=load_onnx, tasks=frozenset({Task.PYTHON})),
        EngineKind(
            name="fake",
            load=fake.load,
            tasks=texts | chat,
            has_files=False,
            has_gpu=False,
            is_shared=True,
        ),
    )


@dataclass(frozen=True, slots=True)
class EngineTable:
    """The engines of a process, and what its tasks ask of them.

    Args:
        kinds: by name.
        capabilities: what an engine must do for a task, where it isn't the task itself.

    """

    kinds: Mapping[str, EngineKind] = field(default_factory=known_engines)
    capabilities: Mapping[str, str] = field(default_factory=dict)

    def capability(self, task: str) -> str:
        """Return what an engine must do for a task."""
        return self.capabilities.get(task, task)

    def has_files(self, engine: str) -> bool:
        """Say whether an engine's models are files; `load` refuses engines that aren't known."""
        return engine in self.kinds and self.kinds[engine].has_files

    def load(self, request: EngineRequest) -> Engine:
        """Load one model; blocks for as long as that takes.

        Raises:
            EngineError: the engine isn't known, doesn't do this task, can't load this model, or
                hasn't the device that is asked for.

        """
        kind = self.kinds.get(request.engine)
        if kind is None:
            names = ", ".join(self.kinds)
            raise EngineError(f"engine {request.engine!r} is not known; known are {names}")
        if request.task not in kind.tasks:
            able = [one.name for one in self.kinds.values() if request.task in one.tasks]
            raise EngineError(
                f"engine {request.engine!r} doesn't do {request.task}; these do:"
                f" {', '.join(able) or 'none'}"
            )
        check_name(request.device)
        if request.is_own_device and is_cuda(request.device) and not kind.has_gpu:
            raise EngineError(
                f"{request.device_setting}: the engine {kind.name!r} computes on the CPU alone;"
                " remove device, or name another engine"
            )
        return kind.load(request)


def load_engine(request: EngineRequest) -> Engine:
    """Load one model on an engine that is known; raises as `EngineTable.load` does."""
    return EngineTable().load(request)


def load_torch(request: EngineRequest) -> Engine:
    """Load a model of texts or images on torch."""
    if request.task not in IMAGE_TASKS:
        return torch.load(request)
    from app.engines.images import on_torch

    return on_torch.load(request)


def load_llama_cpp(request: EngineRequest) -> Engine:
    """Load a GGUF file as a chat model, an embedder or a reranker."""
    if request.task != Task.CHAT:
        from app.engines.llama_cpp import text_loading

        return text_loading.load(request)
    generator = llama_cpp.load(request)
    from app.engines.chat import LocalChat

    assert request.chat is not None  # noqa: S101  # or it would not have loaded
    return LocalChat(generator, name=request.name)


def load_remote(request: EngineRequest) -> Engine:
    """Make a chat model, an embedder or a reranker of a remote server."""
    if request.task == Task.RANKING:
        from app.engines import remote_reranker

        return remote_reranker.load(request)
    if request.task != Task.CHAT:
        from app.engines import remote_embedder

        return remote_embedder.load(request)
    from app.engines import remote  # imports LangChain

    return remote.load(request)


def load_python(request: EngineRequest) -> Engine:
    """Load a class of the operator's, and tell it the device: "cpu", "cuda" or "cuda:1"."""
    device = request.device
    if device == "auto":
        device = "cuda" if has_cuda_driver() else "cpu"
    elif is_cuda(device) and request.is_own_device:
        check_cuda(device, asked_by=request.device_setting, count=count_cuda())
    from app.engines.python import loading as python

    return python.load(request, device=device)


def load_onnx(request: EngineRequest) -> Engine:
    """Open an `.onnx` file with ONNX Runtime, if it is installed."""
    from app.engines.onnx import loading as onnx

    return onnx.load(request)


def load_converted(request: EngineRequest) -> Engine:
    """Load a model of texts or images on OpenVINO, converting it first if need be."""
    if request.task not in IMAGE_TASKS:
        return loading.load(request)
    from app.engines.images import conversion

    return conversion.load(request)


def load_best(request: EngineRequest, *, has_gpu: Callable[[], bool] | None = None) -> Engine:
    """Load on torch where there is a GPU for it, else on OpenVINO; on torch if OpenVINO can't.

    A GGUF file, and whatever chats, is llama.cpp's.
    """
    if request.task == Task.CHAT or is_gguf(request.folder):
        return EngineTable().load(replace(request, engine="llama_cpp"))  # which knows its tasks
    if request.openvino is None or (request.device != "cpu" and (has_gpu or torch_has_gpu)()):
        return load_torch(request)
    if is_cuda(request.device):
        return load_torch(request)  # which says that there is none
    try:
        return load_openvino(request)
    except ConversionError as failure:
        log.warning("engine_fallback", extra=_facts(request) | {"reason": str(failure)})
        return load_torch(request)


def load_openvino(request: EngineRequest, *, load: Load = load_converted) -> Engine:
    """Load on OpenVINO; on torch if OpenVINO's answers differ from torch's.

    A baked model has nothing that torch could load: its failures are raised.
    """
    if baked.is_baked(request.folder):
        return baked.load(request)
    try:
        return load(request)
    except DisagreementError as failure:
        log.warning("engine_disagrees", extra=_facts(request) | dict(failure.figures))
        return load_torch(request)


def _facts(request: EngineRequest) -> dict[str, Any]:
    return {"model": request.name, "engine": "openvino", "instead": "torch"}


def torch_has_gpu() -> bool:
    """Say whether torch can use a GPU; torch itself is imported only where there is a driver."""
    return has_cuda_driver() and torch.has_cuda()
