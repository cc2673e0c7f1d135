"""Answers as Markdown: what is shown, and that nothing in them becomes more than text."""

import time
from collections.abc import Iterator

import pytest
import visit
from playwright.sync_api import Browser, Page
from process import Service

RENDER = """async (texts) => {
    const { showMarkdown } = await import(new URL("static/page/markdown.js", document.baseURI));
    const place = document.createElement("div");
    document.body.append(place);
    for (const text of texts) showMarkdown(place, text);
    const html = place.innerHTML;
    place.remove();
    return html;
}"""


def render(page: Page, *texts: str) -> str:
    html: str = page.evaluate(RENDER, list(texts))
    return html.replace(' dir="auto"', "").replace(' tabindex="0"', "")


CODE = '<pre role="group" aria-label="Code"><code>'
TABLE = (
    '<div class="scroll" role="group" aria-label="Table"><table>'
    '<thead><tr><th scope="col">a</th><th scope="col">b</th></tr>'
    "</thead><tbody><tr><td>1</td><td><em>2</em></td></tr></tbody></table></div>"
)
LINK = '<a href="{0}" title="{0}" target="_blank" rel="noopener noreferrer">{1}</a>'
BARE = LINK.format(*["https://b.example/"] * 2)


@pytest.fixture(scope="module")
def page(chromium: Browser, served: Service) -> Iterator[Page]:
    with visit.visiting(chromium, served.url) as opened:
        yield opened.page


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain\ntext", "<p>plain<br>text</p>"),
        ("one\n\ntwo", "<p>one</p><p>two</p>"),
        ("**b** *i* ~~s~~ `c`", "<p><strong>b</strong> <em>i</em> <s>s</s> <code>c</code></p>"),
        ("**b *i* b**", "<p><strong>b <em>i</em> b</strong></p>"),
        ("2 * 3 * 4 and snake_case_name", "<p>2 * 3 * 4 and snake_case_name</p>"),
        ("`` a`b ``", "<p><code>a`b</code></p>"),
        (r"\*not\* it", "<p>*not* it</p>"),
        ("# Title #\ntext", '<p class="heading">Title</p><p>text</p>'),
        ("---", "<hr>"),
        ("> said\n> so", "<blockquote><p>said<br>so</p></blockquote>"),
        ("```js\n<b> **x**\n```\nend", f"{CODE}&lt;b&gt; **x**</code></pre><p>end</p>"),
        ("```\nopen", f"{CODE}open</code></pre>"),
        ("- a\n- b\n  more\n", "<ul><li>a</li><li>b<br>more</li></ul>"),
        ("3. a\n4. b\n   - c", '<ol start="3"><li>a</li><li>b<ul><li>c</li></ul></li></ol>'),
        ("text\n- a", "<p>text</p><ul><li>a</li></ul>"),
        ("| a | b |\n|---|---|\n| 1 | *2* |", TABLE),
        ("[a](https://b.example/?q=1)", f"<p>{LINK.format('https://b.example/?q=1', 'a')}</p>"),
        ("see https://b.example/x.", f"<p>see {LINK.format(*['https://b.example/x'] * 2)}.</p>"),
    ],
)
def test_markdown_is_shown(page: Page, text: str, html: str) -> None:
    assert render(page, text) == html


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"),
        ("<img src=x onerror=alert(1)>", "<p>&lt;img src=x onerror=alert(1)&gt;</p>"),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"),
        ("[x](javascript:alert)", "<p><span>x</span></p>"),
        ("[x](data:text/html,y)", "<p><span>x</span></p>"),
        ("[x](/predict)", "<p><span>x</span></p>"),
        ("![x](https://b.example/i.png)", f"<p>{LINK.format('https://b.example/i.png', 'x')}</p>"),
        (
            '[x](https://b.example/"y=)',
            f'<p>[x]({BARE}"y=)</p>',
        ),
        ("&lt;b&gt;", "<p>&amp;lt;b&amp;gt;</p>"),
    ],
)
def test_nothing_becomes_more_than_text(page: Page, text: str, html: str) -> None:
    assert render(page, text) == html


def test_a_text_that_grows_ends_as_if_it_had_come_at_once(page: Page) -> None:
    text = "# A\n\ntext **b** `c\n\n1. x\n   - y\n\n```py\ncode\n```\n\n| a |\n|---|\n| b |\n\n> q"
    pieces = [text[:end] for end in range(1, len(text) + 1)]
    assert render(page, *pieces) == render(page, text)


def test_blocks_that_are_done_stay_the_same_nodes(page: Page) -> None:
    kept = page.evaluate(
        """async () => {
            const { showMarkdown } = await import(
                new URL("static/page/markdown.js", document.baseURI));
            const place = document.createElement("div");
            showMarkdown(place, "one\\n\\ntwo");
            const [first, second] = place.children;
            showMarkdown(place, "one\\n\\ntwo and more");
            return [place.children[0] === first, place.children[1] === second];
        }"""
    )
    assert kept == [True, False]


@pytest.mark.parametrize(
    "text",
    [
        "*" * 10_000,
        "`" * 10_000,
        "*a " * 4_000,
        "[" * 10_000,
        "[a](" * 3_000,
        "> " * 5_000,
        "- " * 5_000,
        "|" * 10_000 + "\n" + "|-" * 5_000,
        "_a*b~~c`" * 2_000,
        "https://" * 1_500,
    ],
)
def test_no_text_takes_long(page: Page, text: str) -> None:
    started = time.monotonic()
    render(page, text)
    assert time.monotonic() - started < 2
