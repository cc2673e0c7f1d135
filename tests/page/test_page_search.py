"""The tab Search: texts are added, a job embeds them before one's eyes, and they are found."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Locator, expect
from process import Service, service
from visit import HOSTILE, PHONE

from app.features.documents.schemas import MAX_ID_CHARS, MAX_TEXT_CHARS

MODELS = """
[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
required = true
fake = { delay_ms = 5, fail_on = "poison" }
"""
SLOW = MODELS.replace("delay_ms = 5", "delay_ms = 400")
JOB_MS = 30_000


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that takes jobs."""
    with service(tmp_path_factory.mktemp("embedding"), MODELS, jobs="on") as running:
        running.wait_ready()
        yield running
        running.stop()


def job(visit: Any, title: str) -> Locator:
    found: Locator = visit.page.locator("#jobs li").filter(has_text=title)
    return found


def succeeded(visit: Any, title: str) -> None:
    expect(job(visit, title).locator(".state")).to_have_text("succeeded", timeout=JOB_MS)


def choose_files(visit: Any, **files: str | bytes) -> None:
    visit.page.locator("#add-files").set_input_files(
        [
            {
                "name": name,
                "mimeType": "text/plain",
                "buffer": content.encode() if isinstance(content, str) else content,
            }
            for name, content in files.items()
        ]
    )


def search(visit: Any, query: str) -> Locator:
    visit.page.get_by_role("searchbox", name="Search").fill(query)
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("#search-said")).to_contain_text("result")
    found: Locator = visit.page.locator("#search-results li")
    return found


def test_files_are_added_embedded_and_found_with_their_passage_marked(
    visiting: Any, embedding: Service
) -> None:
    visit = visiting(embedding.url, path="/#search")
    before = "😀 Something else stands here. " * 40
    wanted = "The sentence that is looked for, <b>bold</b>."
    choose_files(visit, **{"sea & salt.txt": f"{before}\n\n{wanted}", "b.md": "Another text."})
    succeeded(visit, "2 texts")
    expect(job(visit, "2 texts").locator(".count")).to_have_text("2 of 2")
    first = search(visit, wanted).first
    answer = httpx2.post(f"{embedding.url}/search", json={"query": wanted, "top_k": 5}).json()
    expected = answer["results"][0]
    expect(first.locator(".title")).to_have_text(expected["metadata"]["title"])
    assert first.locator("mark").inner_text().split() == expected["passage"]["text"][:1200].split()


def test_a_text_that_is_pasted_is_named_by_how_it_begins(visiting: Any, embedding: Service) -> None:
    visit = visiting(embedding.url, path="/#search")
    field = visit.page.get_by_label("Add texts")
    field.fill("A title of its own\nand a text.")
    visit.page.get_by_role("button", name="Add", exact=True).click()
    succeeded(visit, "A title of its own")
    expect(field).to_have_value("")
    first = search(visit, "A title of its own\nand a text.").first
    expect(first.locator(".title")).to_have_text("A title of its own")
    expect(first.locator("mark")).to_have_text("A title of its own\nand a text.")


def test_a_file_that_comes_again_takes_the_place_of_its_old_version(
    visiting: Any, embedding: Service
) -> None:
    visit = visiting(embedding.url, path="/#search")
    name = "grüße (1) ~'!*.txt"
    for text in ("the old version", "the new version"):
        choose_files(visit, **{name: text})
        expect(visit.page.locator("#jobs li")).to_have_count(1 if "old" in text else 2)
        expect(visit.page.locator("#jobs li .state").first).to_have_text(
            "succeeded", timeout=JOB_MS
        )
    found = search(visit, "the new version").filter(has_text=name)
    expect(found).to_have_count(1)
    expect(found.locator("mark")).to_have_text("the new version")


def test_the_progress_of_a_job_is_shown_and_it_can_be_cancelled(
    visiting: Any, tmp_path: Any
) -> None:
    with service(tmp_path, SLOW, jobs="on") as running:
        running.wait_ready()
        visit = visiting(running.url, path="/#search")
        choose_files(visit, **{f"{n}.txt": f"text number {n}" for n in range(600)})
        row = job(visit, "600 texts")
        expect(row.locator(".state")).to_have_text("running", timeout=JOB_MS)
        expect(row.locator(".count")).to_have_text(re.compile(r"^[1-9]\d* of 600$"), timeout=JOB_MS)
        assert 0 < row.get_by_role("progressbar").evaluate("(bar) => bar.position") < 1
        row.get_by_role("button", name="Cancel").click()
        expect(row.locator(".state")).to_have_text("cancelled", timeout=JOB_MS)
        expect(row.get_by_role("button")).to_have_count(0)
        running.stop()


def test_a_job_is_followed_over_a_restart_of_the_service_and_of_the_page(
    visiting: Any, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"jobs": "on", "job_lease_s": 5}
    with service(tmp_path, SLOW, **settings) as running:
        running.wait_ready()
        visit = visiting(running.url, path="/#search")
        choose_files(visit, **{f"{n}.txt": f"text number {n}" for n in range(600)})
        row = job(visit, "600 texts")
        expect(row.locator(".state")).to_have_text("running", timeout=JOB_MS)
        visit.expects_failures = True
        running.stop()
        expect(row.get_by_role("status")).to_have_text(
            "Waiting for the service. The job isn't lost.", timeout=JOB_MS
        )
        expect(row.locator(".state")).to_have_text("unknown")
        expect(row.get_by_role("button", name="Cancel")).to_be_visible()
        # It is away for longer than a page that gives up soon would wait.
        for _ in range(8):
            visit.page.wait_for_event("requestfailed", lambda sent: "/events" in sent.url)
    with service(tmp_path, SLOW, port=running.port, **settings) as running:
        expect(row.locator(".state")).to_have_text("running", timeout=2 * JOB_MS)
        expect(row.get_by_role("status")).to_have_count(0)
        visit.expects_failures = False
        visit.page.reload()
        row = job(visit, "600 texts of ")
        expect(row.locator(".state")).to_have_text("running", timeout=JOB_MS)
        visit.open("Status")
        visit.open("Search")
        expect(visit.page.locator("#jobs li")).to_have_count(1)
        row.get_by_role("button", name="Cancel").click()
        expect(row.locator(".state")).to_have_text("cancelled", timeout=JOB_MS)
        expect(row.get_by_role("button")).to_have_count(0)
        visit.page.reload()
        with visit.page.expect_response("**/jobs?status=queued"):
            pass
        expect(visit.page.locator("#jobs li")).to_have_count(0)
        running.stop()


def test_a_job_that_nobody_answers_for_can_be_followed_again(
    visiting: Any, embedding: Service
) -> None:
    visit = visiting(embedding.url, path="/#search")
    visit.expects_failures = True
    # Its key has lost the right, say: that doesn't pass.
    refusal = {"code": "forbidden", "title": "Forbidden", "status": 403, "request_id": "an-id"}
    visit.page.route("**/events", lambda route: route.fulfill(status=403, json=refusal))
    choose_files(visit, **{"a.txt": "a text"})
    row = job(visit, "a.txt")
    expect(row.get_by_role("alert")).to_contain_text("This key may not do that.")
    expect(row.get_by_role("button", name="Cancel")).to_be_visible()
    expect(row.get_by_role("button", name="request as curl")).to_be_visible()
    visit.page.unroute("**/events")
    row.get_by_role("button", name="Follow again").click()
    succeeded(visit, "a.txt")
    expect(row.get_by_role("alert")).to_have_count(0)
    expect(row.get_by_role("button")).to_have_count(0)


def test_many_jobs_leave_the_page_connections_for_the_rest(visiting: Any, tmp_path: Path) -> None:
    with service(tmp_path, SLOW, jobs="on") as running:
        running.wait_ready()
        for n in range(8):
            documents = [{"text": f"text {n} {m}"} for m in range(500)]
            body = {"documents": documents}
            httpx2.post(f"{running.url}/embed-batch", json=body).raise_for_status()
        visit = visiting(running.url, path="/#search")
        jobs = visit.page.locator("#jobs li")
        expect(jobs).to_have_count(8)
        visit.page.get_by_role("searchbox", name="Search").fill("text 0 0")
        visit.page.keyboard.press("Enter")
        expect(visit.page.locator("#search-said")).not_to_be_empty()
        assert len([r for r in visit.requests if r.url.endswith("/events")]) == 3
        # When the oldest is over, the next one is followed.
        with visit.page.expect_request("**/events"):
            jobs.last.get_by_role("button", name="Cancel").click()
        expect(jobs.last.locator(".state")).to_have_text("cancelled")
        expect(jobs.last.get_by_role("button")).to_have_count(0)
        running.stop()


def test_documents_that_failed_are_named_and_counted(visiting: Any, embedding: Service) -> None:
    visit = visiting(embedding.url, path="/#search")
    files = {f"bad{n}.txt": f"poison {n}" for n in range(7)}
    choose_files(visit, **{"good.txt": "a good text", **files})
    row = job(visit, "8 texts")
    expect(row.locator(".state")).to_have_text("failed", timeout=JOB_MS)
    expect(row.locator(".count")).to_have_text("1 of 8, 7 failed")
    assert row.get_by_role("progressbar").evaluate("(bar) => bar.position") == 1
    said = row.get_by_role("alert")
    expect(said).to_contain_text("7 texts failed.")
    expect(row.locator(".errors li")).to_have_count(6)
    expect(row.locator(".errors li").first).to_contain_text("bad0.txt: ")
    expect(row.locator(".errors li").last).to_have_text("and 2 more")


def test_a_text_is_added_once_and_what_is_typed_meanwhile_stays(
    visiting: Any, embedding: Service
) -> None:
    visit = visiting(embedding.url, path="/#search")
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    visit.page.route("**/documents", hold)
    field = visit.page.get_by_label("Add texts")
    add = visit.page.get_by_role("button", name="Add", exact=True)
    field.fill("the first text")
    with visit.page.expect_request("**/documents"):
        add.dblclick(force=True)
    expect(add).to_be_disabled()
    expect(visit.page.get_by_role("button", name="Add four example texts")).to_be_disabled()
    field.fill("the second text")
    expect(add).to_be_disabled()
    held.pop().continue_()
    succeeded(visit, "the first text")
    expect(field).to_have_value("the second text")
    expect(add).to_be_enabled()
    assert len(visit.sent("/documents")) == 1


def test_files_that_are_no_text_are_left_out_and_named(
    visiting: Any, embedding: Service, tmp_path: Path
) -> None:
    visit = visiting(embedding.url, path="/#search")
    (tmp_path / "folder").mkdir()
    (tmp_path / "paper.pdf").write_bytes(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    (tmp_path / "unicode.txt").write_text("written by a spreadsheet", encoding="utf-16")
    visit.drop("#add", *(tmp_path / name for name in ("folder", "paper.pdf", "unicode.txt")))
    expect(visit.page.locator("#add-problem").get_by_role("alert")).to_have_text(
        "“folder” can't be read. Of a folder, take the files in it. "
        "“paper.pdf” doesn't look like text. If it is, save it as UTF-8."
    )
    succeeded(visit, "unicode.txt")
    (stored,) = visit.sent("/documents")[0].post_data_json["documents"]
    assert stored["text"] == "written by a spreadsheet"


def test_a_search_among_nothing_says_what_to_do(visiting: Any, tmp_path: Any) -> None:
    with service(tmp_path, MODELS, jobs="on") as running:
        running.wait_ready()
        visit = visiting(running.url, path="/#search")
        visit.page.get_by_role("searchbox", name="Search").fill("anything")
        visit.page.keyboard.press("Enter")
        expect(visit.page.locator("#search-said")).to_have_text(
            "Nothing found. Texts can be found once their job has succeeded."
        )
        # As of a service without a queue for jobs.
        problem = {"code": "jobs_unavailable", "status": 503, "request_id": "r-1"}
        visit.page.route(
            "**/embed-batch",
            lambda route: route.fulfill(
                status=503, content_type="application/problem+json", body=json.dumps(problem)
            ),
        )
        visit.expects_failures = True
        visit.page.get_by_role("button", name="Add four example texts").click()
        expect(visit.page.locator("#add-problem").get_by_role("alert")).to_contain_text(
            "Request id"
        )


def test_no_text_that_is_found_breaks_the_page(visiting: Any, embedding: Service) -> None:
    visit = visiting(embedding.url, path="/#search", width=PHONE, bypass_csp=True)
    assert visit.violations() == []
    texts = [text.replace("\0", "") for text in HOSTILE.values()]  # with it they are no text
    files = {f"<b>{n}</b> \u202e.txt": text for n, text in enumerate(texts)}
    choose_files(visit, **files)
    succeeded(visit, f"{len(files)} texts")
    visit.page.get_by_label("Results").select_option("20")
    for text in texts:
        search(visit, text[:1900])
        assert not visit.is_wider_than_its_window()
        assert visit.page.title() == "Search · ml-api"
    assert visit.page.locator("main :is(img, script, iframe, h1)").count() == 0
    assert visit.violations() == []


def test_a_search_that_is_overtaken_by_another_is_dropped(visiting: Any, tmp_path: Path) -> None:
    with service(tmp_path, SLOW, jobs="on") as running:
        running.wait_ready()
        visit = visiting(running.url, path="/#search")
        choose_files(visit, first="the first text", second="the second text")
        succeeded(visit, "2 texts")
        field = visit.page.get_by_role("searchbox", name="Search")
        with visit.page.expect_request("**/search"):
            field.fill("the first text")
            field.press("Enter")
        with visit.page.expect_event("requestfailed") as dropped:
            field.fill("the second text")
            field.press("Enter")
        assert dropped.value.post_data_json["query"] == "the first text"
        expect(visit.page.locator("#search-said")).to_have_text("2 results")
        expect(visit.page.locator("#search-results .title").first).to_have_text("second")
        expect(visit.page.locator("#search-problem")).to_be_empty()
        running.stop()


DOCUMENTS = """async (files) => {
    const { fromFiles, batches } = await import(
        new URL("static/page/documents.js", document.baseURI));
    const made = fromFiles(files);
    return [made, [...batches(made)].map((batch) => batch.length)];
}"""


def test_files_of_any_name_and_length_become_documents(visiting: Any) -> None:
    names = ["ä.txt", "ö.txt", "..", "a b.txt", "x" * 200, "same", "same"]
    long = "word " * 50_000 + "😀" * 60_000
    files = [{"name": name, "text": "text"} for name in names] + [{"name": "long", "text": long}]
    made, sizes = visiting().page.evaluate(DOCUMENTS, files)
    ids = [document.get("id") for document in made]
    assert ids[:7] == [":C3:A4.txt", ":C3:B6.txt", None, "a:20b.txt", None, "same", None]
    given = [each for each in ids if each is not None]
    assert len(set(given)) == len(given)
    assert all(re.fullmatch(r"[A-Za-z0-9._:-]+", each) for each in given)
    assert all(len(each) <= MAX_ID_CHARS for each in given)
    parts = made[7:]
    assert "".join(document["text"] for document in parts) == long
    assert all(len(document["text"]) <= MAX_TEXT_CHARS for document in parts)
    titles = [document["metadata"]["title"] for document in parts]
    assert titles[0] == f"long (1 of {len(parts)})"
    assert sum(sizes) == len(made)
