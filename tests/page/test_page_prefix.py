"""The page and `/docs` behind a proxy that publishes the service under a prefix."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import visit
from playwright.sync_api import Browser, expect
from process import service
from reverse_proxy import PREFIX, proxying

MODELS = '[[models]]\nname = "mood"\nengine = "fake"\nlabels = ["BAD", "GOOD"]\ndefault = true\n'


@contextmanager
def behind_proxy(port: int, *, strips: bool) -> Iterator[str]:
    """Run a proxy in a thread, beside playwright's event loop; give its address."""
    loop = asyncio.new_event_loop()
    started: list[str] = []
    is_started, ends = threading.Event(), asyncio.Event()

    async def run() -> None:
        async with proxying(port, strips=strips) as url:
            started.append(url)
            is_started.set()
            await ends.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), name="proxy")
    thread.start()
    try:
        assert is_started.wait(20)
        yield started[0]
    finally:
        loop.call_soon_threadsafe(ends.set)
        thread.join(20)
        loop.close()


def test_the_page_and_the_documentation_work_behind_a_prefix(
    chromium: Browser, tmp_path: Path
) -> None:
    with service(tmp_path, MODELS, root_path=PREFIX) as served:
        served.wait_ready()
        # A visit fails at its end if anything was asked outside of the prefix, or in vain.
        for strips in (True, False):
            with (
                behind_proxy(served.port, strips=strips) as url,
                visit.visiting(chromium, url) as page,
            ):
                page.page.get_by_label("One text").fill("A good day")
                expect(page.page.locator("#classify-bars .bar")).to_have_count(2)
            with (
                behind_proxy(served.port, strips=strips) as url,
                visit.visiting(chromium, url, path="/docs") as docs,
            ):
                docs.page.locator("#operations-predict-predict_predict_post").click()
                docs.page.get_by_role("button", name="Try it out").click()
                docs.page.get_by_role("button", name="Execute").click()
                expect(docs.page.locator(".request-url")).to_contain_text(f"{PREFIX}/predict")
                expect(
                    docs.page.locator(".live-responses-table tbody .response-col_status")
                ).to_contain_text("200")
