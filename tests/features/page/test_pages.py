"""The page at `/` as files: its headers, its size, and that nothing in it leads elsewhere.

What it does is tried in a browser, in tests/page.
"""

import re
from pathlib import Path

import pytest
from httpx2 import AsyncClient

WEB = Path(__file__).parents[3] / "app" / "features" / "page" / "web"
FILES = sorted(file.name for file in WEB.iterdir())
MAX_BYTES = 150_000


@pytest.mark.parametrize("path", ["/", "/static/page/main.js", "/static/page/base.css"])
async def test_the_page_may_use_its_own_files_only(client: AsyncClient, path: str) -> None:
    answer = await client.get(path)
    head = await client.head(path)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert head.headers["Content-Length"] == str(len(answer.content))


async def test_every_file_is_served_as_what_it_is(client: AsyncClient) -> None:
    kinds = {
        ".css": "text/css",
        ".html": "text/html",
        ".js": "text/javascript",
        ".svg": "image/svg+xml",
    }
    for name in FILES:
        answer = await client.get(f"/static/page/{name}")
        assert answer.status_code == 200, name
        assert answer.headers["Content-Type"].startswith(kinds[Path(name).suffix]), name


@pytest.mark.parametrize("path", ["/", "/static/page/main.js"])
async def test_a_browser_that_has_a_file_is_told_so(client: AsyncClient, path: str) -> None:
    first = await client.get(path)
    again = await client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert first.headers["Cache-Control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/static/page/none.js", "/static/page/../settings.py"])
async def test_what_is_not_there_is_a_problem(client: AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_another_method_names_those_that_there_are(client: AsyncClient) -> None:
    answer = await client.put("/")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD, POST"  # POST is for Hugging Face's clients


def test_the_page_is_small() -> None:
    assert sum((WEB / name).stat().st_size for name in FILES) < MAX_BYTES


def test_nothing_in_the_page_leads_to_another_host() -> None:
    for name in FILES:
        text = (WEB / name).read_text(encoding="utf-8")
        urls = re.findall(r"https?://[^\s\"'`\\]+", text)
        assert [url for url in urls if url != "http://www.w3.org/2000/svg"] == [], name


def test_nothing_in_the_page_is_parsed_as_html() -> None:
    for name in FILES:
        text = (WEB / name).read_text(encoding="utf-8")
        unsafe = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(| on\w+=| style="
        assert not re.search(unsafe, text), name


def test_every_file_is_part_of_the_page() -> None:
    page = (WEB / "index.html").read_text(encoding="utf-8")
    imported = {"index.html", *re.findall(r'"static/page/([^"]+)"', page)}
    for file in WEB.glob("*.js"):
        imported |= set(re.findall(r'from "\./(\S+)"', file.read_text(encoding="utf-8")))
    assert set(FILES) == imported
