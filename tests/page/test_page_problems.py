"""What a visitor is told when something is wrong, on each tab."""

from pathlib import Path
from typing import Any

import httpx2
from playwright.sync_api import Locator, expect
from process import service

KEY = "an-admin-s-secret-key"
ONE_OF_EACH = """
[[models]]
name = "mood"
engine = "fake"
required = true

[[models]]
name = "talker"
task = "chat"
engine = "fake"
required = true
slots = 1
waiting = 0
fake = { delay_ms = 30 }

[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
"""
UNREACHABLE = "The service does not answer. It may have stopped, or the network is down."


def alert(visit: Any, place: str) -> Locator:
    found: Locator = visit.page.locator(f"#{place}").get_by_role("alert")
    return found


def test_a_service_that_has_stopped(visiting: Any, tmp_path: Path) -> None:
    with service(tmp_path, ONE_OF_EACH, jobs="on") as running:
        running.wait_ready()
        visit = visiting(running.url)
        page = visit.page
        visit.open("Chat")
        page.get_by_label("Message").fill("word " * 500)
        page.keyboard.press("Enter")
        expect(page.get_by_role("article", name="Answer")).to_contain_text("word word")
        running.process.kill()
        running.process.wait()
        visit.expects_failures = True
        expect(alert(visit, "chat")).to_contain_text("The connection broke before")
        page.get_by_label("Message").fill("again")
        page.keyboard.press("Enter")
        expect(alert(visit, "chat").last).to_contain_text(UNREACHABLE)

        visit.open("Classify")
        page.get_by_label("One text").fill("hello")
        expect(alert(visit, "classify-problem")).to_have_text(UNREACHABLE)
        page.get_by_label("Many texts").fill("hello")
        page.get_by_role("button", name="Classify 1 text").click()
        expect(alert(visit, "many-problem")).to_have_text(UNREACHABLE)

        visit.open("Search")
        page.get_by_role("button", name="Add four example texts").click()
        expect(alert(visit, "add-problem")).to_have_text(UNREACHABLE)
        page.get_by_label("Search").last.fill("bread")
        page.keyboard.press("Enter")
        expect(alert(visit, "search-problem")).to_have_text(UNREACHABLE)

        visit.open("Status")
        expect(page.locator("#status-said")).to_have_text(UNREACHABLE)


def test_a_key_is_asked_for_and_kept_in_this_tab_only(visiting: Any, tmp_path: Path) -> None:
    with service(tmp_path, ONE_OF_EACH, auth="required", admin_key=KEY) as running:
        running.wait_ready()
        visit = visiting(running.url)
        visit.expects_failures = True
        page, key = visit.page, visit.page.get_by_label("API key")
        problem = alert(visit, "classify-problem")
        expect(problem).to_contain_text("This service asks for an API key.")
        problem.get_by_role("button", name="Enter a key").click()
        expect(key).to_be_focused()
        page.keyboard.type("not-a-key")
        page.keyboard.press("Enter")
        expect(problem).to_contain_text("This API key is not valid.")
        expect(problem).to_contain_text("Request id")
        with page.expect_response("**/predict"):
            page.get_by_label("One text").fill("hello")
        expect(problem).to_contain_text("This API key is not valid.")
        key.fill(KEY)
        page.keyboard.press("Enter")
        expect(problem).to_be_hidden()
        # What was typed before there was a key is answered now.
        expect(page.locator("#classify-said")).not_to_be_empty()
        visit.expects_failures = False
        page.reload()
        expect(key).to_have_value(KEY)
        expect(page.locator("#classify-model")).to_have_value("mood")
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        other = page.context.new_page()
        other.goto(running.url)
        expect(other.get_by_label("API key")).to_have_value("")
        other.close()


def test_a_key_that_can_not_be_a_header_is_no_valid_key(visiting: Any) -> None:
    visit = visiting()
    key, problem = visit.page.get_by_label("API key"), alert(visit, "classify-problem")
    key.fill("mlk_ab…yz")
    visit.page.get_by_label("One text").fill("hello")
    expect(problem).to_contain_text("This API key is not valid.")
    key.fill("")
    visit.page.keyboard.press("Tab")
    expect(visit.page.locator("#classify-said")).not_to_be_empty()
    expect(visit.page.locator("#classify-problem")).to_be_empty()


def test_a_network_that_comes_back_is_noticed(visiting: Any) -> None:
    visit = visiting()
    visit.expects_failures = True
    page = visit.page
    expect(page.locator("#classify-model")).to_have_value("mood")
    page.context.set_offline(offline=True)
    page.get_by_label("One text").fill("hello")
    expect(alert(visit, "classify-problem")).to_have_text(UNREACHABLE)
    # Of models that nobody can be asked about, nothing is known.
    expect(page.locator("#classify-model")).to_contain_text("mood (unknown)")
    page.context.set_offline(offline=False)
    expect(page.locator("#classify-said")).not_to_be_empty()
    expect(page.locator("#classify-problem")).to_be_empty()
    expect(page.locator("#classify-model option").first).to_have_text("mood")


def test_what_is_said_every_few_seconds_leaves_its_reader_alone(visiting: Any) -> None:
    visit = visiting()
    visit.expects_failures = True
    page = visit.page
    expect(page.locator("#classify-model")).to_have_value("mood")
    page.context.set_offline(offline=True)
    page.get_by_label("One text").fill("hello")
    curl = page.locator("#classify-problem").get_by_role("button", name="as curl")
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/models")):
        curl.focus()
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/models")):
        pass
    expect(curl).to_be_focused()


def test_a_limit_that_is_used_up(visiting: Any, tmp_path: Path) -> None:
    with service(tmp_path, ONE_OF_EACH, default_limit="1/hour") as running:
        running.wait_ready()
        httpx2.post(f"{running.url}/predict", json={"text": "the only one"})
        visit = visiting(running.url)
        visit.expects_failures = True
        visit.page.get_by_label("One text").fill("hello")
        problem = alert(visit, "classify-problem")
        expect(problem).to_contain_text("That was one request too many for now. Try again in ")
        expect(problem).to_contain_text("Request id")


def test_a_service_that_is_full(visiting: Any, served: Any) -> None:
    first, second = visiting(path="/#chat"), visiting(path="/#chat")
    second.expects_failures = True
    for visit in (first, second):
        visit.choose("talker")
        visit.page.get_by_label("Message").fill("word " * 1000)
    first.page.keyboard.press("Enter")
    expect(first.page.get_by_role("article", name="Answer")).to_contain_text("word word")
    second.page.keyboard.press("Enter")
    expect(alert(second, "chat")).to_contain_text("The service is busy.")
    expect(alert(second, "chat")).to_contain_text("Request id")
    first.page.keyboard.press("Escape")
    expect(first.page.get_by_role("button", name="Send")).to_be_visible()
    while httpx2.get(f"{served.url}/metrics").text.count('generations_active{model="talker"} 1'):
        pass
    second.page.get_by_label("Message").fill("not again")
    alert(second, "chat").get_by_role("button", name="Try again").click()
    expect(second.page.get_by_role("article", name="Answer")).to_contain_text("word word")
    second.page.keyboard.press("Escape")
    expect(second.page.get_by_role("button", name="Send")).to_be_visible()


def test_a_model_that_is_still_loading(visiting: Any, tmp_path: Path) -> None:
    slow = ONE_OF_EACH.replace(
        'engine = "fake"', 'engine = "fake"\nfake = { load_delay_ms = 12000 }', 1
    )
    with service(tmp_path, slow) as running:
        visit = visiting(running.url)
        visit.expects_failures = True
        expect(visit.page.locator("#classify-model")).to_contain_text("mood (loading)")
        visit.page.get_by_label("One text").fill("hello")
        problem = alert(visit, "classify-problem")
        expect(problem).to_contain_text("The model is still loading. Try again in 2 s.")
        expect(visit.page.locator("#classify-model")).to_have_text("mood", timeout=60_000)
        # What was typed meanwhile is answered then.
        expect(visit.page.locator("#classify-said")).not_to_be_empty()
        expect(problem).to_be_hidden()


def test_a_field_that_is_wrong_is_named(visiting: Any) -> None:
    visit = visiting(path="/#chat")
    visit.expects_failures = True
    visit.page.get_by_label("Temperature").fill("3")
    visit.page.get_by_label("Message").fill("hello")
    visit.page.keyboard.press("Enter")
    expect(alert(visit, "chat")).to_contain_text("temperature: Input should be less than or equal")


def test_an_answer_of_something_in_between(visiting: Any) -> None:
    visit = visiting()
    visit.expects_failures = True
    visit.page.route(
        "**/predict", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>")
    )
    visit.page.get_by_label("One text").fill("hello")
    expect(alert(visit, "classify-problem")).to_have_text(
        "Something on the way to the service answered with status 502."
    )
