"""Take the pictures of the README: the real page, the real models, a real browser."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import httpx2
from browser import CHROMIUM  # of tests/, as the next three; the Makefile puts it on the path
from converted import CONVERTED
from playwright.sync_api import Page, expect
from process import service
from visit import DESKTOP, PHONE, browser, visiting

from scripts.ending import clean_up_on_sigterm

IMAGES = Path(__file__).parent.parent / "docs" / "images"
ANSWER_MS = 60_000
REVIEWS = """id,review
1,The best coffee I have had in years.
2,It broke after a week.
3,"Friendly staff, lovely garden, and we will be back."
4,Two hours late and nobody said a word."""
QUESTIONS = [
    "What is the capital of France?",
    "Give me three short tips for better sleep, as a numbered list.",
]
WHOLE = {"classify", "search", "status"}  # not only what fits the window
LOAD_TEXTS = [f"A sentence of some words, number {n}, to be classified." for n in range(24)]
LOAD_S = 30


def classify(page: Page) -> None:
    """Show one text and a table."""
    page.get_by_label("One text").fill("A film that stays with you for days.")
    page.get_by_label("Many texts").fill(REVIEWS)
    page.get_by_role("button", name="Classify 4 texts").click()
    expect(page.locator("#classify-said")).not_to_be_empty()
    expect(page.locator("#many-said")).to_contain_text("classified")


def chat(page: Page) -> None:
    """Show an answer."""
    options = page.locator("#chat-options")
    is_open = options.get_attribute("open") is not None
    options.evaluate("(options) => { options.open = true; }")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Max tokens").fill("160")
    options.evaluate("(options, isOpen) => { options.open = isOpen; }", is_open)
    for question in QUESTIONS:
        page.get_by_label("Message").fill(question)
        page.keyboard.press("Enter")
        figures = page.locator(".answer").last.locator(".note")
        expect(figures).to_contain_text("tokens/s ·", timeout=ANSWER_MS)


def search(page: Page) -> None:
    """Show texts that were added, and what is found among them."""
    page.get_by_role("button", name="Add four example texts").click()
    page.mouse.move(0, 0)
    expect(page.locator("#jobs .state")).to_have_text("succeeded", timeout=ANSWER_MS)
    page.get_by_role("searchbox", name="Search").fill("How do insects talk to each other?")
    page.get_by_label("Results").select_option("3")
    page.keyboard.press("Enter")
    expect(page.locator("mark").first).to_be_visible()


def status(page: Page) -> None:
    """Show charts of a service that has something to do."""
    url = page.url.partition("#")[0]
    page.wait_for_timeout(2500)  # a reading of the quiet before
    for second in range(LOAD_S):
        httpx2.post(f"{url}predict-batch", json={"texts": LOAD_TEXTS[: 8 + second % 16]})
        if second % 5 == 0:
            asked = {"query": QUESTIONS[1], "max_tokens": 100, "temperature": 0}
            httpx2.post(f"{url}chat", json=asked, timeout=ANSWER_MS / 1000)
        page.wait_for_timeout(900)


SHOWS: dict[str, Callable[[Page], None]] = {
    "classify": classify,
    "chat": chat,
    "search": search,
    "status": status,
}


def main() -> None:
    """Take them all: on a desktop in light, and chat on a phone in the dark."""
    clean_up_on_sigterm()
    if CHROMIUM is None:
        sys.exit("ml-api: there is no browser to take pictures with")
    IMAGES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder), model_cache_dir=CONVERTED, jobs="on") as running,
        browser() as chromium,
    ):
        running.wait_ready()
        for name, show in SHOWS.items():
            with visiting(chromium, running.url, path=f"/#{name}", width=DESKTOP) as visit:
                take(name, show, visit.page)
        with visiting(
            chromium, running.url, path="/#chat", width=PHONE, color_scheme="dark"
        ) as visit:
            take("chat-phone", chat, visit.page)


def take(name: str, show: Callable[[Page], None], page: Page) -> None:
    """Bring the page to what is to be seen, and write the picture."""
    show(page)
    page.evaluate("document.activeElement.blur()")
    file = IMAGES / f"{name}.png"
    page.screenshot(path=file, animations="disabled", caret="hide", full_page=name in WHOLE)
    print(f"{file.relative_to(IMAGES.parent.parent)}: {file.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
