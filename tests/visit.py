"""A visit to the page in a real browser, held to what holds for every visit."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from axe_playwright_python.sync_playwright import Axe
from browser import CHROMIUM, QUIET
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Error,
    Page,
    Request,
    expect,
    sync_playwright,
)

# What takes milliseconds takes seconds on a machine that does much else.
expect.set_options(timeout=20_000)
PHONE, DESKTOP = 390, 1280  # pixels
HEIGHT = 800
# Whatever a page asks for, the browser leaves this machine for nothing.
STAY = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
# Texts that mean harm, or look like it.
HOSTILE = {
    "html": "<h1>big</h1><img src=x onerror='document.title=\"broken\"'>",
    "script": "</textarea></script><script>document.title = 'broken'</script>",
    "markdown": "[a](javascript:document.title='broken') ![b](http://b.example/c.png)",
    "right to left": "\u202eabc\u202d \u2067 שלום \u2066 مرحبا \u200f\u061c end",
    "long word": "x" * 10_000,
    "long emoji": "👩‍👩‍👧‍👧" * 1_000,
    "marks": "Z" + "\u0301\u0327" * 200,
    "controls": "a\u0000b\u0007c\u2028d\u2029e\ufefff",
}
# What the browser itself says of an answer with an error status, or of none.
FAILED_LOAD = "Failed to load resource"


@contextmanager
def browser() -> Iterator[Browser]:
    """Start the browser that is installed on this machine; end it when the block does."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, STAY])
        try:
            yield started
        finally:
            started.close()


@dataclass
class Visit:
    """The page in a browser, and what went on there.

    Args:
        page: playwright's.
        url: of the service.
        errors: what the console was told, and exceptions that nobody caught.
        requests: all that were sent.
        expects_failures: whether requests may fail in this visit.

    """

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    expects_failures: bool = False

    def open(self, tab: str) -> None:
        """Show a tab by clicking on it."""
        self.page.get_by_role("tab", name=tab).click()

    def choose(self, model: str) -> None:
        """Choose a model for the tab that is shown."""
        self.page.get_by_role("combobox", name="Model").select_option(model)

    def drop(self, place: str, *paths: Path) -> None:
        """Drop files or folders of this machine on an element, as from the desktop."""
        box = self.page.locator(place).bounding_box()
        assert box is not None
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        devtools = self.page.context.new_cdp_session(self.page)
        for kind in ("dragEnter", "dragOver", "drop"):
            event = {"type": kind, "x": box["x"] + 10, "y": box["y"] + 10, "data": data}
            devtools.send("Input.dispatchDragEvent", event)

    def note_console(self, message: ConsoleMessage) -> None:
        is_expected = self.expects_failures and message.text.startswith(FAILED_LOAD)
        if message.type in {"error", "warning"} and not is_expected:
            self.errors.append(message.text)

    def note_exception(self, failure: Error) -> None:
        self.errors.append(f"{failure}\n{failure.stack}")

    def note_request(self, request: Request) -> None:
        self.requests.append(request)

    def sent(self, path: str) -> list[Request]:
        """Return the requests to one path, the oldest first."""
        return [request for request in self.requests if request.url == self.url + path]

    def check(self) -> None:
        """Hold the visit to what holds for every visit."""
        assert self.errors == []
        elsewhere = [r.url for r in self.requests if not r.url.startswith((self.url, "blob:"))]
        assert elsewhere == []

    def violations(self) -> list[str]:
        """Return what axe finds; the page's policy would refuse it: `bypass_csp` lets it in."""
        options = {"resultTypes": ["violations"]}
        found = Axe().run(self.page, options=options).response["violations"]
        return [f"{v['id']}: {node['html'][:200]}" for v in found for node in v["nodes"]]

    def is_wider_than_its_window(self) -> bool:
        """Say whether one has to scroll sideways."""
        found: bool = self.page.evaluate(
            "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )
        return found


@contextmanager
def visiting(
    chromium: Browser, url: str, *, path: str = "/", width: int = DESKTOP, **context: Any
) -> Iterator[Visit]:
    """Open the page in a browser context of its own; check the visit at the end."""
    options: Mapping[str, Any] = {"viewport": {"width": width, "height": HEIGHT}, **context}
    opened = chromium.new_context(**options)
    try:
        visit = Visit(opened.new_page(), url)
        visit.page.on("console", visit.note_console)
        visit.page.on("pageerror", visit.note_exception)
        visit.page.on("request", visit.note_request)
        visit.page.goto(url + path)
        yield visit
        visit.check()
    finally:
        opened.close()


def metric(url: str, line: str) -> float:
    """Return one sample of /metrics by its name and labels, as they are written there."""
    for said in httpx2.get(f"{url}/metrics").text.splitlines():
        name, _, value = said.rpartition(" ")
        if name == line:
            return float(value)
    return 0.0
