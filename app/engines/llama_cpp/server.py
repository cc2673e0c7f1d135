"""Opens a GGUF file in llama.cpp's server loop, on the device that is asked for."""

import ctypes
import importlib.util
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.engines.base import EngineRequest
from app.engines.devices import AUTO, CPU, CUDA, index_of, is_cuda
from app.errors import EngineError

SUFFIX = ".gguf"
OPENMP = "libgomp.so.1"
# How often a waiting thread polls before it sleeps. OpenMP's own 300,000 leave no processor time
# to other threads; see docs/decisions/0006-chat.md.
SPIN_COUNT = "1000"
OpenLibrary = Callable[..., Any]
QUIET = -1  # below every level that llama.cpp logs at
GPU_KINDS = ("GGML_BACKEND_DEVICE_TYPE_GPU", "GGML_BACKEND_DEVICE_TYPE_IGPU")
ALL_LAYERS = 999  # more than any model has


def load_openmp(open_library: OpenLibrary = ctypes.CDLL) -> None:
    """Load the OpenMP library that xllamacpp needs and doesn't bring, and keep it from spinning.

    Slim images lack it; torch's wheel has a copy under the same name. Without either, importing
    xllamacpp says what is missing.
    """
    # Read once, when the library is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    torch = importlib.util.find_spec("torch")
    folders = torch.submodule_search_locations if torch else None
    copies = [Path(folder) / "lib" / OPENMP for folder in folders or ()]
    for name in (OPENMP, *map(str, copies)):
        with suppress(OSError):
            open_library(name, mode=ctypes.RTLD_GLOBAL)
            return


def library() -> Any:  # noqa: ANN401  # untyped
    """Import xllamacpp.

    Raises:
        EngineError: the system lacks a library that it needs.

    """
    load_openmp()
    try:
        import xllamacpp
    except ImportError as failure:
        raise EngineError(f"xllamacpp can't be imported: {failure}") from failure
    return xllamacpp


def find_file(source: Path | None) -> Path:
    """Return the one GGUF file of a source, which is that file or its folder.

    Raises:
        EngineError: it is something else, or the folder has none or several.

    """
    if source is None or (source.suffix != SUFFIX and not source.is_dir()):
        raise EngineError("the llama_cpp engine needs a source that is a .gguf file, or its folder")
    if not source.is_dir():
        return source
    names = sorted(str(file.relative_to(source)) for file in source.rglob(f"*{SUFFIX}"))
    if len(names) != 1:
        has = f"several .gguf files ({', '.join(names)})" if names else "no .gguf file"
        raise EngineError(f"{source}: has {has}; let source name one")
    return source / names[0]


def is_gguf(source: Path | None) -> bool:
    """Say whether a source is a GGUF file, or a folder whose weights are in one."""
    if source is None or not source.is_dir():
        return source is not None and source.suffix == SUFFIX
    if (source / "config.json").is_file() and any(source.glob("*.safetensors")):
        return False
    return any(source.rglob(f"*{SUFFIX}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenServer:
    """A server loop with its model.

    Args:
        server: xllamacpp's `Server`.
        key: that its HTTP port on loopback wants.
        device: "cpu", "cuda" or "cuda:1".

    """

    server: Any
    key: str
    device: str


def open_server(
    file: Path, request: EngineRequest, *, cores: int, http_threads: int, **settings: object
) -> OpenServer:
    """Load a file; blocks for a second or two.

    Args:
        file: of the model.
        request: says the device.
        cores: processor threads of all calls together.
        http_threads: that answer on loopback.
        settings: of xllamacpp's `CommonParams`, by their names there.

    Raises:
        EngineError: llama.cpp can't load the file, or hasn't the device.

    """
    xllamacpp = library()
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = cores
    params.verbosity = QUIET
    # The wheel always opens an HTTP port on loopback: a random key keeps others out.
    key = secrets.token_hex(32)
    params.api_keys = [key]
    params.ui = False
    params.endpoint_slots = False
    params.n_threads_http = http_threads
    device = _choose_device(xllamacpp, params, request)
    for name, value in settings.items():
        setattr(params, name, value)
    try:
        server = xllamacpp.Server(params)
    except (RuntimeError, ValueError, MemoryError) as failure:
        raise EngineError(
            f"{file}: llama.cpp can't load this model: it is cut off, damaged, or of a"
            " kind that it doesn't know; compare the file with the one it was copied from"
        ) from failure
    return OpenServer(server=server, key=key, device=device)


def _choose_device(xllamacpp: Any, params: Any, request: EngineRequest) -> str:  # noqa: ANN401  # untyped library
    """Set where a model computes, and return it: on all GPUs, unless the device says otherwise.

    Raises:
        EngineError: a GPU is asked for that this build of llama.cpp doesn't find.

    """
    gpus = count_gpus(xllamacpp.get_device_info())
    if request.device == CPU or (request.device == AUTO and not gpus):
        params.n_gpu_layers = 0
        return CPU
    index = index_of(request.device)
    if is_cuda(request.device) and gpus <= (index or 0):
        raise EngineError(
            f"{request.device_setting}: llama.cpp finds {gpus or 'no'} GPU"
            f"{'s' if gpus > 1 else ''}; the xllamacpp of PyPI computes on the CPU alone"
        )
    params.n_gpu_layers = ALL_LAYERS
    if index is None:
        return CUDA
    params.split_mode = xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_NONE
    params.main_gpu = index
    return request.device


def count_gpus(devices: Sequence[Mapping[str, Any]]) -> int:
    """Return how many of llama.cpp's devices are GPUs."""
    return sum(getattr(device.get("type"), "name", "") in GPU_KINDS for device in devices)
