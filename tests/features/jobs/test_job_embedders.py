"""The models of a worker: loaded when they are needed, and broken for good."""

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from serving import batched, make_settings

from app.batching.scheduler import BatchScheduler
from app.core.metrics import Metrics
from app.engines.base import Encoded, EngineRequest, FloatArray, Task
from app.engines.fake import FakeEmbedder, FakeOptions
from app.errors import DeadlineExceededError, EngineError, InferenceFailedError, ModelNotFoundError
from app.features.jobs.embedders import JobEmbedders, LoadedEmbedder
from app.models.catalog import ModelSpec, read_catalog
from app.models.entries import Served
from app.runtime.parts import make_load

LATE_S = 30.0
MODELS = """
[[models]]
name = "sentiment"
engine = "fake"

[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
fake = {{ {options} }}
"""


class CudaError(RuntimeError):
    """After one of these a process gets nothing else."""


class Panic(BaseException):
    """What no engine should raise."""


class Breaking(FakeEmbedder):
    """Does what the test says before each call, with the number of the call."""

    def __init__(self, before: Callable[[int], object]) -> None:
        request = EngineRequest(name="vectors", task=Task.EMBEDDING, engine="fake")
        super().__init__(request, FakeOptions())
        self._before = before
        self._calls = 0

    def embed(self, batch: Sequence[Encoded]) -> FloatArray:
        self._calls += 1
        self._before(self._calls)
        return super().embed(batch)


@contextmanager
def breaking(before: Callable[[int], object], **policy: float) -> Iterator[LoadedEmbedder]:
    """Give an embedder whose engine breaks."""
    model = batched(Breaking(before))
    yield LoadedEmbedder("vectors", Served(model=model, version="1"), **policy)
    model.close(timeout_s=5)


class Worker:
    """The embedders of a worker, and what it has loaded."""

    def __init__(self, folder: Path, options: str) -> None:
        settings = make_settings(folder, MODELS.format(options=options))
        catalog = read_catalog(settings.models_file)
        self.tokenisers = ThreadPoolExecutor(1)
        self._load = make_load(settings, catalog, tokenisers=self.tokenisers, metrics=Metrics())
        self.served: list[Served] = []
        self.embedders = JobEmbedders(catalog, load=self.load)

    def load(self, spec: ModelSpec, *_: Any) -> Served:
        self.served.append(self._load(spec))
        return self.served[-1]

    def close(self) -> None:
        for served in self.served:
            cast("BatchScheduler[Any]", served.model).close(timeout_s=5)
        self.tokenisers.shutdown()


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Callable[[str], Worker]]:
    workers: list[Worker] = []

    def make(options: str) -> Worker:
        workers.append(Worker(tmp_path, options))
        return workers[-1]

    yield make
    for each in workers:
        each.close()


async def test_a_model_is_loaded_when_it_is_needed_and_once(
    worker: Callable[[str], Worker],
) -> None:
    child = worker("delay_ms = 0")
    assert child.served == []
    embedder = await child.embedders.find("vectors")
    assert embedder.space.startswith("vectors@")
    assert await child.embedders.find("vectors") is embedder
    assert len(child.served) == 1


@pytest.mark.parametrize("name", ["sentiment", "nonsense"])
async def test_what_is_no_embedder_is_named(worker: Callable[[str], Worker], name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=name):
        await worker("delay_ms = 0").embedders.find(name)


async def test_vectors_come_in_the_order_of_their_texts(worker: Callable[[str], Worker]) -> None:
    embedder = await worker("delay_ms = 0").embedders.find("vectors")
    texts = ["the longest of these texts", "short", "not so long", "s"]
    alone = [(await embedder.embed([text]))[0] for text in texts]
    together = await embedder.embed(texts)
    for one, other in zip(alone, together, strict=True):
        assert isinstance(one, np.ndarray)
        assert isinstance(other, np.ndarray)
        assert np.array_equal(one, other)
    assert await embedder.embed([]) == []


async def test_texts_that_the_engine_fails_on_fail_alone(worker: Callable[[str], Worker]) -> None:
    child = worker('fail_on = "poison"')
    embedder = await child.embedders.find("vectors")
    good, bad = await embedder.embed(["fine", "poison"])
    assert isinstance(good, np.ndarray)
    assert isinstance(bad, InferenceFailedError)
    (bad,) = await embedder.embed(["poison"])
    assert isinstance(bad, InferenceFailedError)
    assert not child.embedders.are_broken


async def test_an_engine_that_fails_on_everything_is_broken(
    worker: Callable[[str], Worker],
) -> None:
    child = worker('fail_on = "good"')
    embedder = await child.embedders.find("vectors")
    assert not child.embedders.are_broken
    with pytest.raises(EngineError, match="every text"):
        await embedder.embed(["one good text", "a good one"])
    assert child.embedders.are_broken


async def test_an_engine_that_hangs_is_broken() -> None:
    gate = threading.Event()
    with breaking(lambda _: gate.wait(LATE_S), timeout_s=0.1) as held:
        with pytest.raises(EngineError, match="hangs"):
            await held.embed(["one"])
        assert held.is_broken
        gate.set()


async def test_an_engine_that_is_slow_is_not_broken() -> None:
    """Each call is quick; there are more of them than the time allows."""
    with breaking(lambda _: time.sleep(0.1), timeout_s=0.5) as slow:
        with pytest.raises(DeadlineExceededError):
            await slow.embed([f"text {n}" for n in range(100)])
        assert not slow.is_broken


async def test_an_engine_that_breaks_under_way_blames_none_of_the_texts() -> None:
    def fault(call: int) -> None:
        if call > 1:
            raise CudaError

    with breaking(fault) as broken:
        with pytest.raises(EngineError, match="every text"):
            await broken.embed([f"text {n}" for n in range(30)])
        assert broken.is_broken


async def test_threads_that_die_under_way_blame_none_of_the_texts() -> None:
    def panic(_call: int) -> None:
        raise Panic

    with breaking(panic) as dying:
        with pytest.raises(EngineError, match="died"):
            await dying.embed([f"text {n}" for n in range(128)])
        assert dying.is_broken


async def test_an_engine_whose_threads_have_died_is_broken(
    worker: Callable[[str], Worker],
) -> None:
    child = worker("delay_ms = 0")
    embedder = await child.embedders.find("vectors")
    child.close()
    with pytest.raises(EngineError, match="died"):
        await embedder.embed(["one"])
    assert child.embedders.are_broken
