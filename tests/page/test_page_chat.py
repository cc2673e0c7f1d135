"""The tab Chat: streamed, stopped, remembered, measured."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from visit import metric

STOP_MS = 30_000  # a token takes so long only on a machine that does much else
ACTIVE = 'mlapi_generations_active{model="talker"}'
LEFT = 'mlapi_generations_total{end="client_left",model="talker"}'
# Sums up what moved without anybody's doing since it was installed.
WATCH_SHIFTS = """() => {
    window.shifts = [];
    new PerformanceObserver((list) => window.shifts.push(...list.getEntries().map((shift) => ({
        value: shift.value, sources: shift.sources.map(({ node }) => node?.outerHTML),
    })))).observe({ type: "layout-shift", buffered: false });
}"""


def say(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")


def last_answer(page: Page) -> Any:
    return page.get_by_role("article", name="Answer").last


def ended(page: Page) -> None:
    expect(page.get_by_role("button", name="Send")).to_be_visible(timeout=STOP_MS)


def test_an_answer_comes_with_its_figures(visiting: Any) -> None:
    visit = visiting(path="/#chat")
    visit.choose("talker")
    say(visit.page, "one two three four five")
    ended(visit.page)
    answer = last_answer(visit.page)
    expect(answer.locator(".body")).to_have_text("one two three four five")
    figures = r"talker · first token after [\d.]+ m?s · [\d.]+ tokens/s · 5 tokens"
    expect(answer.locator(".note")).to_have_text(re.compile(figures))
    expect(visit.page.locator("#chat-said")).to_have_text("Answer: one two three four five")


def test_the_conversation_is_sent_whole_and_a_new_one_is_empty(visiting: Any) -> None:
    visit = visiting(path="/#chat")
    for text in ("one", "two"):
        say(visit.page, text)
        expect(last_answer(visit.page).locator(".body")).to_have_text(text)
        ended(visit.page)
    visit.page.get_by_role("button", name="New chat").click()
    say(visit.page, "three")
    ended(visit.page)
    bodies = [r.post_data_json["messages"] for r in visit.sent("/chat/stream")]
    assert [[m["content"] for m in body] for body in bodies] == [
        ["one"],
        ["one", "one", "two"],
        ["three"],
    ]
    assert [m["role"] for m in bodies[1]] == ["user", "assistant", "user"]


def test_parameters_go_along(visiting: Any) -> None:
    visit = visiting(path="/#chat")
    given = {"Max tokens": "2", "Temperature": "0.5", "Top p": "0.9", "Seed": "7"}
    for label, value in given.items():
        visit.page.get_by_label(label).fill(value)
    visit.page.get_by_label("System prompt").fill("Be brief.")
    visit.page.get_by_label("Stop at").fill("###")
    say(visit.page, "one two three")
    ended(visit.page)
    (request,) = visit.sent("/chat/stream")
    assert request.post_data_json == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "one two three"},
        ],
        "max_tokens": 2,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "stop": "###",
    }
    expect(last_answer(visit.page).locator(".note")).to_contain_text("cut at the limit of tokens")


@pytest.mark.parametrize("how", ["button", "key"])
def test_stop_ends_the_generation_in_the_service(visiting: Any, how: str) -> None:
    visit = visiting(path="/#chat")
    left = metric(visit.url, LEFT)
    visit.choose("talker")
    say(visit.page, "word " * 1000)
    expect(last_answer(visit.page).locator(".body")).to_contain_text("word word")
    assert metric(visit.url, ACTIVE) == 1
    if how == "button":
        visit.page.get_by_role("button", name="Stop").click()
    else:
        visit.page.keyboard.press("Escape")
    expect(last_answer(visit.page).locator(".note")).to_contain_text("stopped")
    visit.page.wait_for_function(
        """async (line) => (await (await fetch("metrics")).text()).includes(line)""",
        arg=f"{LEFT} {left + 1}",
        timeout=STOP_MS,
    )
    assert metric(visit.url, ACTIVE) == 0
    expect(visit.page.get_by_label("Message")).to_be_focused()
    say(visit.page, "and again")
    expect(last_answer(visit.page).locator(".body")).to_have_text("and again")


def test_nothing_moves_while_an_answer_comes(visiting: Any) -> None:
    visit = visiting(path="/#chat")
    visit.choose("talker")
    say(visit.page, "first " * 10)
    ended(visit.page)
    visit.page.evaluate(WATCH_SHIFTS)
    say(visit.page, "a longer answer that needs some lines " * 12)
    ended(visit.page)
    assert visit.page.evaluate("window.shifts") == []


def test_a_reader_who_scrolls_up_is_left_there(visiting: Any) -> None:
    visit = visiting(path="/#chat")
    say(visit.page, "many words " * 1000)
    ended(visit.page)
    visit.choose("talker")
    say(visit.page, "more words " * 200)
    messages = visit.page.locator("#chat-messages")
    gap = "(place) => place.scrollHeight - place.scrollTop - place.clientHeight"
    expect(last_answer(visit.page).locator(".body")).to_contain_text("words more")
    assert messages.evaluate(gap) < 5
    messages.evaluate("(place) => { place.scrollTop = 0; }")
    expect(last_answer(visit.page).locator(".body")).to_contain_text("words more words more")
    assert messages.evaluate("(place) => place.scrollTop") == 0
    visit.page.keyboard.press("Escape")


def test_shift_and_enter_start_a_line(visiting: Any) -> None:
    visit = visiting(path="/#chat")
    field = visit.page.get_by_label("Message")
    field.press_sequentially("one")
    visit.page.keyboard.press("Shift+Enter")
    field.press_sequentially("two")
    assert field.input_value() == "one\ntwo"
    assert visit.sent("/chat/stream") == []


def test_an_answer_that_fails_on_the_way_can_be_tried_again(visiting: Any) -> None:
    visit = visiting(path="/#chat")
    visit.choose("broken")
    say(visit.page, "one two three four")
    answer = last_answer(visit.page)
    expect(answer.get_by_role("alert")).to_contain_text("The engine failed on this input.")
    expect(answer.get_by_role("alert")).to_contain_text("Request id")
    expect(answer.locator(".body")).to_have_text("one two three")
    visit.choose("echo")
    answer.get_by_role("button", name="Try again").click()
    expect(last_answer(visit.page).locator(".body")).to_have_text("one two three four")
    assert visit.page.get_by_role("article").count() == 2
    assert len(visit.sent("/chat/stream")[-1].post_data_json["messages"]) == 1
