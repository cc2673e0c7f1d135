"""Copy as curl, Python, JavaScript: what is copied runs, and says what the page said."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import expect
from process import Service, service

from app.models.schemas import PredictResponse

RUN = {
    "curl": (["sh"], "copied.sh"),
    "Python": ([sys.executable], "copied.py"),
    "JavaScript": (["node"], "copied.mjs"),
}
PROGRAM = {"curl": "curl", "Python": sys.executable, "JavaScript": "node"}
# What would end a string, begin a command, or be another character in some language.
NASTY = "It's \"fine\" \\ $HOME `id` ${x} %s {y} \u2028 é 😀\nsecond 'line' \\u0041 \\"
MAX_ARGUMENT_BYTES = 128 * 1024  # what Linux passes to a command in one piece
ALLOWED = ["clipboard-read", "clipboard-write"]
KEY = "an-admin-s-secret-key"


def copied(page: Any, place: str, name: str) -> str:
    page.locator(place).get_by_role("button", name=f"request as {name}").click()
    expect(page.locator("#announce")).to_have_text(f"Copied as {name}")
    code: str = page.evaluate("navigator.clipboard.readText()")
    return code


def run(name: str, code: str, folder: Path, **environment: str) -> str:
    if shutil.which(PROGRAM[name]) is None:
        pytest.skip(f"there is no {PROGRAM[name]} on this machine")
    command, file = RUN[name]
    (folder / file).write_text(code, encoding="utf-8")
    done = subprocess.run(
        [*command, folder / file],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (code, done.stderr)
    return done.stdout


@pytest.mark.parametrize("name", RUN)
def test_a_classification_runs(visiting: Any, tmp_path: Path, name: str) -> None:
    visit = visiting(permissions=ALLOWED)
    visit.page.get_by_label("One text").fill(NASTY)
    code = copied(visit.page, "#classify-copy", name)
    answer = json.loads(run(name, code, tmp_path))
    assert PredictResponse.model_validate(answer).text == NASTY


@pytest.mark.parametrize("name", RUN)
def test_a_request_that_is_longer_than_an_argument_may_be_runs(
    visiting: Any, served: Service, tmp_path: Path, name: str
) -> None:
    visit = visiting(permissions=ALLOWED)
    texts = [f"{n} It's $HOME `id` \\ é 😀 {'x' * 1900}" for n in range(80)]
    visit.page.get_by_label("Many texts").fill("\n".join(texts))
    visit.page.get_by_role("button", name="Classify 80 texts").click()
    said = "80 texts classified; of 80 only the beginning was read"
    expect(visit.page.locator("#many-said")).to_have_text(said)
    code = copied(visit.page, "#many-copy", name)
    assert len(code.encode()) > MAX_ARGUMENT_BYTES
    answer = httpx2.post(f"{served.url}/predict-batch", json={"texts": texts}).json()
    found = json.loads(run(name, code, tmp_path))
    for result in (*answer["results"], *found["results"]):
        del result["prediction_id"]  # each answer has its own
    assert found["results"] == answer["results"]


@pytest.mark.parametrize("name", RUN)
def test_a_chat_runs(visiting: Any, tmp_path: Path, name: str) -> None:
    visit = visiting(path="/#chat", permissions=ALLOWED)
    visit.page.get_by_label("Temperature").fill("0.5")
    visit.page.get_by_label("Message").fill("it's one")
    visit.page.keyboard.press("Enter")
    code = copied(visit.page, ".answer .copy", name)
    lines = [json.loads(line) for line in run(name, code, tmp_path).splitlines() if line]
    assert "".join(line["token"] for line in lines) == "it's one"
    assert lines[-1]["done"] is True


REFUSAL = {"code": "overloaded", "title": "Overloaded", "status": 503, "request_id": "an-id"}


def test_a_request_that_failed_can_be_copied_on_each_tab(
    visiting: Any, served: Service, tmp_path: Path
) -> None:
    visit = visiting(permissions=ALLOWED)
    visit.expects_failures = True
    page = visit.page

    def refuse(path: str) -> None:
        page.route(f"**{path}", lambda route: route.fulfill(status=503, json=REFUSAL))

    def failed(place: str, path: str) -> str:
        box = page.locator(f"{place} .problem")
        expect(box.get_by_role("alert")).to_contain_text("Request id an-id")
        code = copied(page, f"{place} .problem", "curl")
        assert f"'{served.url}{path}'" in code
        return code

    for path in ("/predict", "/predict-batch", "/chat/stream", "/documents", "/search", "/metrics"):
        refuse(path)
    page.get_by_label("One text").fill("hello")
    code = failed("#classify-problem", "/predict")
    page.get_by_label("Many texts").fill("one\ntwo")
    page.get_by_role("button", name="Classify 2 texts").click()
    failed("#many-problem", "/predict-batch")
    visit.open("Chat")
    page.get_by_label("Message").fill("hello")
    page.keyboard.press("Enter")
    assert '"content":"hello"' in failed(".answer", "/chat/stream")
    visit.open("Search")
    page.get_by_role("button", name="Add four example texts").click()
    failed("#add-problem", "/documents")
    page.get_by_role("searchbox", name="Search").fill("anything")
    page.keyboard.press("Enter")
    failed("#search-problem", "/search")
    visit.open("Status")
    failed("#status-problem", "/metrics")
    # It is the very request: the service itself answers it.
    assert json.loads(run("curl", code, tmp_path))["text"] == "hello"


@pytest.mark.parametrize("name", RUN)
def test_a_get_request_runs(visiting: Any, tmp_path: Path, name: str) -> None:
    visit = visiting(path="/#status", permissions=ALLOWED)
    code = copied(visit.page, "#models-copy", name)
    models = json.loads(run(name, code, tmp_path))["models"]
    assert models[0]["name"] == "mood"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks for a key."""
    models = '[[models]]\nname = "mood"\nengine = "fake"\n'
    folder = tmp_path_factory.mktemp("guarded")
    with service(folder, models, auth="required", admin_key=KEY) as running:
        running.wait_ready()
        yield running


@pytest.mark.parametrize("name", RUN)
def test_the_key_is_no_part_of_the_code(
    visiting: Any, guarded: Service, tmp_path: Path, name: str
) -> None:
    visit = visiting(guarded.url, permissions=ALLOWED)
    visit.expects_failures = True  # before the key is given
    visit.page.get_by_label("API key").fill(KEY)
    visit.page.get_by_label("One text").fill("hello")
    code = copied(visit.page, "#classify-copy", name)
    assert KEY not in code
    assert json.loads(run(name, code, tmp_path, APP_KEY=KEY))["text"] == "hello"


def test_no_two_buttons_that_copy_have_one_name(visiting: Any) -> None:
    page = visiting().page
    page.get_by_label("One text").fill("hello")
    page.get_by_label("Many texts").fill("one\ntwo")
    page.get_by_role("button", name="Classify 2 texts").click()
    expect(page.get_by_role("button", name="request as")).to_have_count(2 * len(RUN))
    for what in ("classification", "batch"):
        for name in RUN:
            button = page.get_by_role("button", name=f"Copy {what} request as {name}", exact=True)
            expect(button).to_have_count(1)


def test_without_a_clipboard_the_code_can_be_copied_by_hand(visiting: Any) -> None:
    visit = visiting()
    visit.page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    visit.page.get_by_label("One text").fill("hello")
    visit.page.get_by_role("button", name="Copy classification request as curl").click()
    dialog = visit.page.get_by_role("dialog", name="Copy by hand")
    assert dialog.get_by_role("textbox").input_value().startswith("curl -s ")
    visit.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
