"""The page as a whole: keyboard, screen readers, widths, and texts that mean harm."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect
from visit import DESKTOP, HOSTILE, PHONE

TABS = [
    *("Classify", "Chat", "Search", "Entities", "Rerank", "Zero-shot", "Similarity"),
    *("More", "Status"),
]


def fill_everything(visit: Any, text: str) -> None:
    """Have a text shown wherever the page shows one."""
    page = visit.page
    visit.open("Classify")
    visit.choose("hostile")
    page.get_by_label("One text").fill(text[:1900])
    expect(page.locator("#classify-said")).not_to_be_empty()
    page.get_by_label("Many texts").fill(f"{text}\nanother")
    page.get_by_role("button", name=re.compile(r"^Classify \d+ texts")).click()
    expect(page.locator("#many-said")).to_contain_text("classified")
    visit.open("Entities")
    page.get_by_role("tabpanel").get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Find", exact=True).click()
    expect(page.locator("#entities .result .passage")).to_be_visible()
    visit.open("Chat")
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")
    expect(page.locator(".answer .note")).to_contain_text("token")
    expect(page.get_by_role("button", name="Send")).to_be_visible()


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_breaks_the_page(visiting: Any, text: str, width: int) -> None:
    visit = visiting(width=width)
    fill_everything(visit, text)
    for tab in TABS:
        visit.open(tab)
        assert not visit.is_wider_than_its_window(), tab
        assert visit.page.title() == f"{tab} · ml-api"
    # Nothing of it has become an element, and the page's own are still there.
    assert visit.page.locator("main :is(img, script, iframe, h1)").count() == 0
    expect(visit.page.get_by_role("tab")).to_have_text(TABS)


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visiting: Any, scheme: str, width: int) -> None:
    visit = visiting(width=width, color_scheme=scheme, bypass_csp=True)
    for tab in TABS:
        visit.open(tab)
        assert visit.violations() == [], f"{tab}, empty"
    code, table = "```\ncode\n```\n\n```\nmore\n```", "| a |\n|---|\n| b |"
    text = "# A\n\n- some `code` and a [link](https://b.example)\n\n> a quote"
    fill_everything(visit, f"{text}\n\n{code}\n\n{table}")
    visit.page.get_by_role("button", name="New chat").focus()
    for tab in TABS:
        visit.open(tab)
        if tab == "Status":
            expect(visit.page.locator("#status-said")).to_contain_text("Ready")
        assert visit.violations() == [], tab
    visit.expects_failures = True
    visit.open("Chat")
    visit.choose("broken")
    visit.page.get_by_label("Message").fill("one two three four five")
    visit.page.keyboard.press("Enter")
    expect(visit.page.get_by_role("alert")).to_be_visible()
    assert visit.violations() == [], "a problem"


def test_the_tabs_are_one_stop_and_the_arrows_go_through_them(visiting: Any) -> None:
    page = visiting().page
    page.keyboard.press("Tab")
    expect(page.get_by_role("tab", name="Classify")).to_be_focused()
    for key, tab in [
        ("ArrowRight", "Chat"),
        ("ArrowRight", "Search"),
        ("End", "Status"),
        ("ArrowRight", "Classify"),
        ("ArrowLeft", "Status"),
        ("Home", "Classify"),
        ("ArrowRight", "Chat"),
    ]:
        page.keyboard.press(key)
        expect(page.get_by_role("tab", name=tab)).to_be_focused()
        expect(page.get_by_role("tab", selected=True)).to_have_text(tab)
        expect(page.get_by_role("tabpanel")).to_have_attribute("id", tab.lower())
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="API reference")).to_be_focused()


def test_all_of_chat_can_be_done_by_keyboard(visiting: Any) -> None:
    page = visiting(path="/#chat").page
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "chat-text":
            break
    page.keyboard.type("hello there")
    page.keyboard.press("Enter")
    expect(page.get_by_role("article", name="Answer")).to_contain_text("hello there")
    expect(page.get_by_label("Message")).to_be_focused()


def test_the_address_remembers_the_tab(visiting: Any) -> None:
    visit = visiting(path="/#status")
    expect(visit.page.get_by_role("tab", selected=True)).to_have_text("Status")
    visit.open("Chat")
    assert visit.page.url.endswith("/#chat")
    visit.page.reload()
    expect(visit.page.get_by_role("tab", selected=True)).to_have_text("Chat")


def test_it_works_behind_a_proxys_prefix(visiting: Any) -> None:
    visit = visiting()
    page = visit.page

    asked: list[str] = []

    def from_prefix(route: Any) -> None:
        asked.append(route.request.url)
        route.continue_(url=route.request.url.replace("/prefix/", "/"))

    page.route("**/prefix/**", from_prefix)
    page.goto(f"{visit.url}/prefix/")
    page.get_by_label("One text").fill("hello")
    expect(page.locator("#classify-said")).not_to_be_empty()
    paths = {url.removeprefix(f"{visit.url}/prefix/") for url in asked}
    assert paths >= {"", "static/page/main.js", "static/page/base.css", "models", "predict"}


def test_html_can_not_be_set_by_the_pages_own_scripts(visiting: Any) -> None:
    visit = visiting()
    refused = visit.page.evaluate(
        """() => { try { document.body.innerHTML = "<b>"; return false; }
                   catch (failure) { return failure.name; } }"""
    )
    assert refused == "TypeError"
    visit.errors.clear()  # the browser's report of what was refused
