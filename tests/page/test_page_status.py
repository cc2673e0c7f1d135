"""The tab Status: charts that move with the service, models with their states."""

import re
from pathlib import Path
from typing import Any

import httpx2
from playwright.sync_api import expect
from process import Service, service

FRESH_MS = 30_000  # the page looks every two seconds
ONE = """
[[models]]
name = "{}"
engine = "fake"
required = true
"""


def chart(visit: Any, title: str) -> Any:
    return visit.page.get_by_role("img", name=re.compile(f"^{title}:"))


def test_models_are_shown_with_their_states(visiting: Any) -> None:
    visit = visiting(path="/#status")
    table = visit.page.get_by_role("table").last
    for name, state in (("mood", "ready"), ("missing", "failed")):
        row = table.get_by_role("row", name=re.compile(f"^{name} "))
        expect(row.locator(".state")).to_have_text(state)
    expect(table.get_by_role("row", name=re.compile("^missing "))).to_contain_text(
        "there is no /nowhere/model.gguf"
    )
    expect(visit.page.locator("#status-said")).to_have_text("Ready, but degraded: model missing")


def test_a_service_that_comes_back_with_other_models_is_shown_as_it_is(
    visiting: Any, tmp_path: Path
) -> None:
    with service(tmp_path, ONE.format("old")) as running:
        running.wait_ready()
        visit = visiting(running.url, path="/#status")
        row = visit.page.locator("#models tr")
        expect(row).to_have_text(re.compile("^old *ready"))
        visit.expects_failures = True
        running.stop()
        expect(row).to_have_text(re.compile("^old *unknown"))
    with service(tmp_path, ONE.format("new"), port=running.port) as running:
        expect(row).to_have_text(re.compile("^new *ready"), timeout=FRESH_MS)
        expect(visit.page.locator("#classify-model")).to_have_text("new")
        expect(visit.page.locator("#status-said")).to_have_text("Ready")


def test_models_that_have_changed_unnoticed_are_loaded_again(visiting: Any) -> None:
    visit = visiting(path="/#status")
    stale = {"name": "gone", "task": "text-classification", "engine": "fake", "state": "ready"}
    visit.page.route("**/models", lambda route: route.fulfill(json={"models": [stale]}), times=1)
    visit.page.reload()
    expect(visit.page.locator("#models th").first).to_have_text("gone")
    expect(visit.page.locator("#models th").first).to_have_text("mood", timeout=FRESH_MS)
    expect(visit.page.locator("#classify-model")).to_have_value("mood")


def test_the_charts_move_with_the_service(visiting: Any, served: Service) -> None:
    visit = visiting(path="/#status")
    requests = chart(visit, "Requests a second")
    expect(requests).to_have_attribute(
        "aria-label", re.compile("now 0, highest 0"), timeout=FRESH_MS
    )
    texts = [f"text {n}" for n in range(16)]
    for _ in range(4):
        httpx2.post(f"{served.url}/predict-batch", json={"texts": texts}).raise_for_status()
        httpx2.post(f"{served.url}/chat", json={"query": "w " * 20}).raise_for_status()
    moved = {
        "Requests a second": r"highest [1-9.]",
        "Time to a text's answer": r"highest [\d.]+ m?s",
        "Texts in a batch": r"highest (1?\d)$",
        "Tokens a second": r"highest [1-9]",
    }
    for title, said in moved.items():
        expect(chart(visit, title)).to_have_attribute(
            "aria-label", re.compile(said), timeout=FRESH_MS
        )
    expect(chart(visit, "Waiting in queues")).to_have_attribute("aria-label", re.compile("now 0"))


def test_the_page_looks_only_while_the_tab_is_shown(visiting: Any) -> None:
    visit = visiting(path="/#status")
    with visit.page.expect_response("**/metrics"):
        pass
    visit.open("Chat")
    before = len(visit.sent("/metrics"))
    visit.page.wait_for_timeout(2500)  # that nothing happens shows only in time
    assert len(visit.sent("/metrics")) == before


def test_a_model_whose_texts_have_become_longer_is_shown_as_drifted(
    visiting: Any, tmp_path: Path
) -> None:
    sizes = {"drift_reference_rows": 1000, "drift_window_rows": 500}
    with service(tmp_path, ONE.format("mood"), **sizes) as running:
        running.wait_ready()
        visit = visiting(running.url, path="/#status")
        expect(visit.page.locator("#models tr")).to_have_text(re.compile("^mood *ready"))
        expect(visit.page.get_by_role("heading", name="Drift")).to_be_hidden()
        for words in (10, 10, 10, 10, 10, 10, 60, 60):
            texts = [" ".join(["word"] * (words + n % 5)) for n in range(250)]
            body = {"texts": texts}
            answer = httpx2.post(f"{running.url}/predict-batch", json=body, timeout=60)
            answer.raise_for_status()
        row = visit.page.locator("#drift tr")
        expect(row).to_have_text(re.compile("^mood .*, drifted"), timeout=FRESH_MS)
        lengths = row.locator("td").nth(2)  # the fake classifier's labels may shift with them
        expect(lengths).to_have_text(re.compile("drifted$"))
        expect(lengths.locator(".state.bad")).to_have_count(1)
        expect(row.locator("td").last).to_have_text(
            "\N{EN DASH}"
        )  # the fake tokeniser knows every word


QUANTILES = """async () => {
    const { parse, quantile } = await import(
        new URL("static/page/prometheus.js", document.baseURI));
    const reading = (...counts) => parse(["0.1", "1", "+Inf"].map((le, place) =>
        `h_bucket{model="a \\\\"b\\\\"",le="${le}"} ${counts[place]}`).join("\\n"));
    const before = reading(5, 5, 5);
    return [
        quantile(0.5, before, reading(15, 15, 15), "h"),
        quantile(0.5, before, reading(5, 15, 15), "h"),
        quantile(0.95, before, reading(5, 5, 15), "h"),
        quantile(0.5, before, before, "h"),
        quantile(0.5, before, reading(0, 0, 0), "h"),
    ];
}"""


def test_quantiles_are_read_as_prometheus_does(visiting: Any) -> None:
    found = visiting().page.evaluate(QUANTILES)
    assert [value and round(value, 6) for value in found] == [0.05, 0.55, 1, None, None]
