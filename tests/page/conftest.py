"""The browser, and a service with fake models that the page is tried on."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest
import visit
from browser import CHROMIUM, NAMES
from playwright.sync_api import Browser
from process import Service, service

MODELS = """
[[models]]
name = "mood"
task = "text-classification"
engine = "fake"
default = true
labels = ["NEGATIVE", "NEUTRAL", "POSITIVE"]
fake = { fail_on = "poison" }

[[models]]
name = "slow"
task = "text-classification"
engine = "fake"
fake = { delay_ms = 500 }

[[models]]
name = "hostile"
task = "text-classification"
engine = "fake"
labels = ["<img src=x onerror='document.title=1'>", "\u202eright to left"]

[[models]]
name = "vectors"
task = "embedding"
engine = "fake"

[[models]]
name = "names"
task = "token-classification"
engine = "fake"

[[models]]
name = "ranks"
task = "text-ranking"
engine = "fake"

[[models]]
name = "nli"
task = "zero-shot-classification"
engine = "fake"

[[models]]
name = "echo"
task = "chat"
engine = "fake"
default = true
context_tokens = 100000

[[models]]
name = "talker"
task = "chat"
engine = "fake"
slots = 1
waiting = 0
context_tokens = 100000
fake = { delay_ms = 30 }

[[models]]
name = "broken"
task = "chat"
engine = "fake"
fake = { delay_ms = 5, fail_after = 3 }

[[models]]
name = "missing"
task = "chat"
source = "file:/nowhere/model.gguf"
engine = "llama_cpp"
"""

Visiting = Callable[..., visit.Visit]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all of this folder: they need a browser."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that all of these tests share; one that stops or refuses is a test's own."""
    with service(tmp_path_factory.mktemp("served"), MODELS, jobs="on") as running:
        running.wait_ready()
        yield running


# For each module anew: playwright keeps an event loop in this thread while it runs, and a test that
# starts a loop of its own must not meet it.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip(f"there is none of {', '.join(NAMES)} on this machine")
    with visit.browser() as started:
        yield started


@pytest.fixture
def visiting(chromium: Browser, served: Service) -> Iterator[Visiting]:
    """Open the page, of the shared service unless another `url` is given."""
    with ExitStack() as visits:

        def start(url: str = served.url, **options: Any) -> visit.Visit:
            opened: AbstractContextManager[visit.Visit]
            opened = visit.visiting(chromium, url, **options)
            return visits.enter_context(opened)

        yield start
