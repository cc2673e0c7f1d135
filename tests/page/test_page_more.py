"""The tab More: routes without a tab of their own are tried as JSON; tabs of no use are hidden."""

import json
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import expect
from process import service

ONE = '[[models]]\nname = "mood"\nengine = "fake"\nrequired = true\n'


def test_a_route_is_tried_with_its_example_and_its_answer_shown(visiting: Any) -> None:
    visit = visiting(path="/#more")
    page = visit.page
    # Only what has no tab of its own, and a model that can answer.
    expect(page.get_by_label("Route").get_by_role("option")).to_have_text(
        ["/embed", "/zero-shot-batch"]
    )
    page.get_by_label("Route").select_option("/embed")
    expect(page.get_by_label("Request, as JSON")).not_to_be_empty()
    page.get_by_role("button", name="Send").last.click()
    answer = page.get_by_role("region", name="Answer")
    expect(answer).to_contain_text('"dimensions": 384')
    expect(page.locator("#more-took")).to_contain_text("ms")


def test_a_chosen_image_is_put_into_the_request(visiting: Any, tmp_path: Path) -> None:
    visit = visiting()
    page = visit.page
    pets = {"name": "pets", "task": "image-classification", "state": "ready", "default": True}
    page.route("**/models", lambda route: route.fulfill(json={"models": [pets]}))
    page.goto(f"{visit.url}/#more")
    page.reload()
    expect(page.get_by_label("Route")).to_have_value("/classify-image-batch")
    picker = page.get_by_role("tabpanel").get_by_label("Images")
    expect(picker).to_be_visible()
    (tmp_path / "dot.png").write_bytes(b"not really")
    picker.set_input_files([tmp_path / "dot.png"])
    body = page.get_by_label("Request, as JSON")
    expect(body).to_have_value(
        re.compile(r'"images": \[\s*"data:image/png;base64,bm90IHJlYWxseQ=="')
    )
    expect(body).to_have_value(re.compile(r'"top_k": 1'))


def test_what_is_no_json_or_is_refused_is_told(visiting: Any) -> None:
    visit = visiting(path="/#more")
    page = visit.page
    page.get_by_label("Route").select_option("/embed")
    page.get_by_label("Request, as JSON").fill("{")
    page.get_by_role("button", name="Send").last.click()
    expect(page.get_by_role("alert")).to_have_text("This is no JSON.")
    visit.expects_failures = True
    page.get_by_label("Request, as JSON").fill(json.dumps({"texts": []}))
    page.get_by_role("button", name="Send").last.click()
    expect(page.get_by_role("alert")).to_contain_text("texts")


def test_tabs_of_what_the_service_lacks_are_hidden(visiting: Any, tmp_path: Path) -> None:
    with service(tmp_path, ONE, features="page") as running:
        running.wait_ready()
        visit = visiting(running.url, path="/#search")
        visit.expects_failures = True  # the tab of the address asked before it was hidden
        tabs = visit.page.get_by_role("tab")
        expect(tabs).to_have_text(["Classify", "Status"])
        expect(visit.page.get_by_role("tab", selected=True)).to_have_text("Classify")
