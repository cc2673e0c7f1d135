"""Runs compiled OpenVINO graphs on this machine's processor: precision, streams, memory."""

import ctypes
import math
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from app.core.memory import give_back_freed
from app.engines.base import FloatArray, OpenVinoOptions
from app.engines.tokenizer import IntArray

_IMPORT_LOCK = threading.Lock()
BF16 = "BF16"
# In float32 one stream of up to four cores does 85 to 95 % of what a stream a core does, in half
# the memory; in bfloat16 it does 60 %. Measured in docs/decisions/0004-openvino.md.
FLOAT32_CORES_PER_STREAM = 4
MAPPINGS = Path("/proc/self/maps")
MADV_DONTNEED = 4  # Linux's <sys/mman.h>


def openvino_library() -> Any:
    """Import OpenVINO, the only way it may be imported here: without its telemetry.

    The import itself reports to Google Analytics, unless a file in the user's home forbids it.
    Where the telemetry package can't be imported OpenVINO takes its own stub instead.
    """
    with _IMPORT_LOCK:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # makes its import fail
        import openvino

        # Its bindings look numpy up once, at the first array. Two threads that do so at once can
        # wait for each other for ever, one with the interpreter's lock: the whole process hangs.
        openvino.Tensor(np.zeros(1, np.float32))
        return openvino


def _capabilities(core: Any) -> Sequence[str]:
    """Ask what the processor can do, in a thread that ends afterwards.

    The first query loads OpenVINO's plug-in, which gives the calling thread an alternate stack
    for signals: the smallest that the kernel allows, too small for a handler of Python's
    where the processor has tiles (AMX). In the main thread the next SIGTERM then ends the process
    with a segmentation fault.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="openvino") as pool:
        capabilities: Sequence[str] = pool.submit(
            core.get_property, "CPU", "OPTIMIZATION_CAPABILITIES"
        ).result()
    return capabilities


def choose_precision(capabilities: Sequence[str]) -> str:
    """Return what to compute in; float32 unless the processor itself does bfloat16."""
    return "bf16" if BF16 in capabilities else "f32"


def choose_streams(options: OpenVinoOptions, precision: str) -> int:
    """Return how many calls to compute side by side, each on its share of the cores."""
    if options.streams is not None:
        return min(options.streams, options.cores)
    if precision == "f32":
        return math.ceil(options.cores / FLOAT32_CORES_PER_STREAM)
    return min(options.cores, options.calls)


class CompiledGraph:
    """A graph compiled for this processor, with one request for each stream.

    `infer` releases the GIL; callers beyond the number of streams wait.
    """

    def __init__(self, core: Any, graph: Any, config: Mapping[str, Any]) -> None:
        self._compiled = core.compile_model(graph, "CPU", config)
        self._inputs = {port.any_name for port in self._compiled.inputs}
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(config["NUM_STREAMS"]):
            self._idle.put(self._compiled.create_infer_request())

    def infer(self, arrays: Mapping[str, IntArray] | Mapping[str, FloatArray]) -> FloatArray:
        """Return the graph's only output, (texts or images, columns) float32.

        Args:
            arrays: its inputs by name, (texts, tokens) int64 or (images, channels, height, width)
                float32; what it doesn't take is left out.

        """
        inputs = {name: array for name, array in arrays.items() if name in self._inputs}
        request = self._idle.get()
        try:
            answer = request.infer(inputs, share_inputs=True)
            output: FloatArray = answer[0]
            return output
        finally:
            self._idle.put(request)


class GraphPair:
    """One model compiled twice: for a call that runs alone, and for concurrent calls.

    A stream for each core has the highest throughput, all cores on one text the lowest latency.
    Which is needed is known only when a call comes, so both are compiled where they differ.
    """

    def __init__(self, *, alone: CompiledGraph, shared: CompiledGraph) -> None:
        self.all = (alone, shared) if alone is not shared else (alone,)
        self._alone = alone
        self._shared = shared
        self._lock = threading.Lock()
        self._running = 0

    @contextmanager
    def choose(self) -> Iterator[CompiledGraph]:
        """Yield the graph that suits the number of running calls."""
        with self._lock:
            self._running += 1
            graph = self._alone if self._running == 1 else self._shared
        try:
            yield graph
        finally:
            with self._lock:
                self._running -= 1


class Processor:
    """The CPU of this machine, as far as the options let it be used."""

    def __init__(self, options: OpenVinoOptions) -> None:
        self._core = openvino_library().Core()
        self.precision = choose_precision(_capabilities(self._core))
        self.streams = choose_streams(options, self.precision)
        self._config = {
            "INFERENCE_NUM_THREADS": options.cores,
            # Every process would take the same cores, the first ones: two workers of one thread
            # each did 454 texts a second together, and 946 without it.
            "ENABLE_CPU_PINNING": False,
        }

    def compile(self, file: Path, *, precision: str | None = None) -> GraphPair:
        """Read and compile a graph; its weights stay mapped from the file beside it.

        Args:
            file: the graph.
            precision: to compute in, where the processor's own isn't exact enough.

        """
        graph = self._core.read_model(file)
        config = self._config | {"INFERENCE_PRECISION_HINT": precision or self.precision}
        alone = CompiledGraph(self._core, graph, config | {"NUM_STREAMS": 1})
        if self.streams == 1:
            return GraphPair(alone=alone, shared=alone)
        shared = CompiledGraph(self._core, graph, config | {"NUM_STREAMS": self.streams})
        return GraphPair(alone=alone, shared=shared)


def release_memory(file: Path, mappings: Path = MAPPINGS) -> None:
    """Give back what loading needed: freed memory, and the pages of a file that is mapped.

    The first calls read all weights once, to pack them into an order of the processor's own; from
    then on the mapped original is only looked up for the embeddings of single tokens, and pages
    that are read again come back by themselves. Does nothing where the system isn't Linux.
    """
    give_back_freed()
    with suppress(OSError, AttributeError):
        system = ctypes.CDLL(None)
        of_file = f" {file.resolve()}"
        for line in mappings.read_text(encoding="utf-8", errors="replace").splitlines():
            span, permissions, *_ = line.split(maxsplit=2)
            # Only what can't have been written to: a changed page would lose its change.
            if line.endswith(of_file) and "w" not in permissions:
                start, end = (int(address, 16) for address in span.split("-"))
                system.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)
