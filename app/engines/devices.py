"""Which device a model is asked to compute on: how it is named, and which of them there are."""

import ctypes
import re
from collections.abc import Callable
from typing import Any

from app.errors import EngineError

AUTO, CPU, CUDA = "auto", "cpu", "cuda"
NAMED = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
CUDA_DRIVERS = ("libcuda.so.1", "nvcuda.dll")

OpenLibrary = Callable[[str], Any]


def check_name(device: str) -> None:
    """Check that a device has a name of ours.

    Raises:
        EngineError: it hasn't; says which there are.

    """
    if NAMED.fullmatch(device) is None:
        raise EngineError(f'device: there is no "{device}"; there are {here(count_cuda())}')


def is_cuda(device: str) -> bool:
    """Say whether a device is a GPU: "cuda", or "cuda:1"."""
    return device.partition(":")[0] == CUDA


def index_of(device: str) -> int | None:
    """Return the number of a GPU, from 0; None where any will do."""
    _, _, number = device.partition(":")
    return int(number) if number else None


def here(cuda_devices: int) -> str:
    """Return the names of the devices of a machine with so many GPUs."""
    return ", ".join((AUTO, CPU, *(f"{CUDA}:{index}" for index in range(cuda_devices))))


def check_cuda(device: str, *, asked_by: str, count: int) -> None:
    """Check that there is the GPU that a device names, on a machine with so many.

    Args:
        device: any of ours.
        asked_by: how it was asked for, for the message.
        count: of the GPUs.

    Raises:
        EngineError: there isn't; says which there are.

    """
    if is_cuda(device) and (index_of(device) or 0) >= count:
        raise EngineError(f"{asked_by}: there are {here(count)}")


def count_cuda(open_library: OpenLibrary = ctypes.CDLL) -> int:
    """Return how many devices NVIDIA's driver shows, without importing torch; 0 without a driver.

    CUDA_VISIBLE_DEVICES counts: a hidden device doesn't count.
    """
    for name in CUDA_DRIVERS:
        try:
            driver = open_library(name)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0


def has_cuda_driver(open_library: OpenLibrary = ctypes.CDLL) -> bool:
    """Say whether NVIDIA's driver is there and shows a device."""
    return count_cuda(open_library) > 0
