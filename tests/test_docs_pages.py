"""`/docs` and `/redoc` under their Content-Security-Policy, in a real browser."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import browser
import httpx2
import pytest
from process import Service, service
from serving import FAKE

PAGES = ["docs", "redoc"]
TIMEOUT_S = 90
# The browser's own clock: it jumps ahead while nothing happens, so that this costs no time.
SETTLED_MS = 8_000
# Nothing is looked up, so that a page which asks others fails in the same way everywhere.
STAY = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
LOGO = "https://cdn.redoc.ly/redoc/logo-mini.svg"
needs_browser = pytest.mark.skipif(
    browser.CHROMIUM is None, reason=f"there is none of {', '.join(browser.NAMES)} on this machine"
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("served"), FAKE, auth="off") as running:
        running.wait_ready()
        yield running


def render(url: str, folder: Path) -> tuple[str, list[str]]:
    """Open a page; return what it has become, and what the browser's policy refused it."""
    assert browser.CHROMIUM is not None
    done = subprocess.run(
        [
            *(browser.CHROMIUM, *browser.QUIET, STAY, f"--user-data-dir={folder}"),
            *("--enable-logging=stderr", f"--virtual-time-budget={SETTLED_MS}", "--dump-dom", url),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, [line for line in said if "rror" in line or "Policy" in line]


@needs_browser
def test_swagger_renders_under_its_policy_and_nothing_is_refused(
    served: Service, tmp_path: Path
) -> None:
    html, refused = render(f"{served.url}/docs", tmp_path)
    assert 'data-path="/predict"' in html
    assert refused == []


@needs_browser
def test_redoc_renders_under_its_policy_and_only_its_makers_logo_is_refused(
    served: Service, tmp_path: Path
) -> None:
    html, refused = render(f"{served.url}/redoc", tmp_path)
    assert "/predict/{model_name}" in html
    assert [LOGO in line for line in refused] == [True]


@pytest.mark.parametrize("page", PAGES)
def test_a_script_that_is_not_the_pages_own_may_not_run(served: Service, page: str) -> None:
    policy = httpx2.get(f"{served.url}/{page}").headers["Content-Security-Policy"]
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    assert not {"*", "http:", "https:", "data:", "blob:"} & set(rules["script-src"].split())
    assert ("sha256-" in rules["script-src"]) is (page == "docs")
    for closed in ("base-uri", "form-action", "frame-ancestors"):
        assert rules[closed] == "'none'"
