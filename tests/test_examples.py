"""The examples of docs/chat.md: shown as they are, and run against the real service."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import httpx2
import pytest
from packaged import smollm2
from process import UNMEASURED, Service, service

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "chat.md"
EXAMPLES = ROOT / "docs" / "examples"
TIMEOUT_S = 60
STOP_S = 10  # a token takes so long only on a machine that does much else
PROMPT = 'default = true\nsystem_prompt = "You are a helpful assistant."'
MODELS = f"""
{smollm2(slots=4, context_tokens=1024, more=PROMPT)}
[[models]]
name = "fake"
task = "chat"
engine = "fake"
required = true
fake = {{ delay_ms = 1, fail_after = 5 }}
"""
QUESTION = {"query": "What is the capital of France?", "max_tokens": 64, "temperature": 0}
# The fake model says five words of it, and then fails.
POISON = {"query": "one zwei trois 四 😀 six seven", "model_name": "fake"}
SAID = ["one", " zwei", " trois", " 四", " 😀"]
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="there is no node on this machine")
needs_browser = pytest.mark.skipif(
    browser.CHROMIUM is None, reason=f"there is none of {', '.join(browser.NAMES)} on this machine"
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with the packaged chat model, for all examples."""
    # Threads of llama.cpp that wait for each other spin on the cores that other tests compute on.
    given: dict[str, Any] = {"engine_threads": 1, **UNMEASURED}
    with service(tmp_path_factory.mktemp("served"), MODELS, **given) as running:
        running.wait_ready()
        yield running


@pytest.fixture(scope="module")
def answer(served: Service) -> str:
    """What the model says to the examples' question, every time."""
    got = httpx2.post(f"{served.url}/chat", json=QUESTION, timeout=TIMEOUT_S)
    assert got.status_code == 200, got.text
    return str(got.json()["answer"])


def run(command: list[str], served: Service) -> str:
    """Run an example as its reader would; return what it prints."""
    done = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], "URL": served.url, "LANG": "C.UTF-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def active(served: Service) -> float:
    """Return how many generations run."""
    text = httpx2.get(f"{served.url}/metrics").text
    return sum(
        map(float, re.findall(r"^mlapi_generations_active\{.*\} (\S+)$", text, re.MULTILINE))
    )


def test_the_document_shows_each_example_as_it_is_run() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    shown = dict(re.findall(r"\]\(examples/([\w.]+)\):\n\n```\w+\n(.*?)```", text, re.DOTALL))
    assert shown == {file.name: file.read_text(encoding="utf-8") for file in EXAMPLES.iterdir()}


def test_curl_gets_a_whole_answer(served: Service, answer: str) -> None:
    said = json.loads(run(["sh", str(EXAMPLES / "curl_whole.sh")], served))
    assert (said["answer"], said["model"], said["finish_reason"]) == (answer, "smollm2", "stop")
    assert said["usage"]["total_tokens"] == sum(said["usage"].values()) / 2


def test_curl_gets_a_token_a_line_and_a_last_line_with_the_end(served: Service) -> None:
    lines = run(["sh", str(EXAMPLES / "curl_stream.sh")], served).splitlines()
    *tokens, last = map(json.loads, lines)
    assert all(list(said) == ["token"] for said in tokens)
    assert "Paris" in "".join(said["token"] for said in tokens)
    assert list(last) == ["token", "done", "finish_reason", "usage"]
    assert last["usage"]["completion_tokens"] >= len(tokens)


def test_curl_gets_the_same_as_events(served: Service, answer: str) -> None:
    events = run(["sh", str(EXAMPLES / "curl_sse.sh")], served).split("\n\n")
    assert events.pop() == ""
    said = [json.loads(event.removeprefix("data: ")) for event in events]
    assert "".join(one["token"] for one in said) == answer
    assert said[-1]["done"] is True


def test_curl_hears_in_the_last_line_that_its_deadline_has_passed(served: Service) -> None:
    said = json.loads(run(["sh", str(EXAMPLES / "curl_deadline.sh")], served).splitlines()[-1])
    problem = said.get("error", said)  # a slow machine has no token by then, and says 504
    assert problem["code"] == "deadline_exceeded"


@pytest.mark.parametrize("name", ["chat_httpx.py", "chat_openai.py", "chat_langchain.py"])
def test_a_python_client_prints_the_answer(name: str, served: Service, answer: str) -> None:
    said = run([sys.executable, str(EXAMPLES / name)], served)
    assert re.sub(r"\n\(\d+ tokens\)\n$", "", said) == answer


def test_a_python_client_runs_the_tool_that_the_model_calls(served: Service) -> None:
    said = run([sys.executable, str(EXAMPLES / "chat_tools.py")], served)
    call = r'get_weather\(\{\s*"city":\s*".*"\s*\}\): It is sunny in .*\.\n(.+)'
    assert re.fullmatch(call, said, re.DOTALL), said


@pytest.fixture
def python_tokens(served: Service, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the example with httpx defines."""
    monkeypatch.setenv("URL", served.url)
    return runpy.run_path(str(EXAMPLES / "chat_httpx.py"))


def test_python_raises_what_ended_the_stream(python_tokens: dict[str, Any]) -> None:
    said: list[str] = []
    with pytest.raises(python_tokens["ChatError"]) as ended:
        said.extend(python_tokens["tokens"](**POISON))
    assert said == SAID
    assert ended.value.args[0]["code"] == "inference_failed"


def test_python_raises_what_it_is_answered_before_the_stream(python_tokens: dict[str, Any]) -> None:
    with pytest.raises(python_tokens["ChatError"]) as ended:
        list(python_tokens["tokens"](query="x", model_name="nobody"))
    assert ended.value.args[0]["status"] == 404


def test_python_stops_the_generation_when_it_closes_the_stream(
    python_tokens: dict[str, Any], served: Service
) -> None:
    tokens = python_tokens["tokens"](query="Tell me a very long story.", temperature=0)
    assert next(tokens)
    assert active(served) == 1
    tokens.close()
    left_s = time.monotonic()
    while active(served):
        assert time.monotonic() < left_s + STOP_S


def node(script: str, served: Service) -> Any:
    """Run a script beside the examples; return what it prints, as JSON."""
    assert NODE is not None
    readers = "".join(
        f"import {{ {name} }} from {json.dumps((EXAMPLES / file).as_uri())};\n"
        for name, file in (("tokens", "chat.mjs"), ("ask", "simple_reader.mjs"))
    )
    start = f"{readers}const url = {json.dumps(served.url)}, got = [];\n"
    return json.loads(run([NODE, "--input-type=module", "-e", start + script], served))


def collected(asked: dict[str, Any], *, url: str = "url") -> str:
    """Script: read with the careful reader; what it throws comes last."""
    return f"""
        try {{
            for await (const token of tokens({url}, {json.dumps(asked)})) got.push(token);
        }} catch (failure) {{ got.push(failure.message); }}
    """


def asked_simply(asked: dict[str, Any], *, url: str = "url") -> str:
    """Script: read with the reader that takes chunks for lines; what it throws comes last."""
    return f"""
        try {{
            await ask({url}, {json.dumps(asked)}, (token) => got.push(token));
        }} catch (failure) {{ got.push(failure.message); }}
    """


PRINT = "console.log(JSON.stringify(got));"
REPORT = 'fetch("/heard", { method: "POST", body: JSON.stringify(got) });'
FAILED = "inference_failed: The engine failed on this input."


@needs_node
def test_javascript_reads_an_answer_in_node(served: Service, answer: str) -> None:
    assert "".join(node(collected(QUESTION) + PRINT, served)) == answer
    assert "".join(node(asked_simply(QUESTION) + PRINT, served)) == answer


@needs_node
def test_an_error_in_mid_stream_breaks_no_reader_in_node(served: Service) -> None:
    assert node(collected(POISON) + PRINT, served) == [*SAID, FAILED]
    assert node(asked_simply(POISON) + PRINT, served) == [*SAID, ""]


@needs_node
def test_the_careful_reader_keeps_a_line_that_comes_in_pieces(served: Service) -> None:
    lines = "".join(json.dumps({"token": t}, ensure_ascii=False) + "\n" for t in SAID)
    lines += '{"token":"","done":true}\n'
    script = f"""
        const bytes = new TextEncoder().encode({json.dumps(lines)});
        globalThis.fetch = async () => new Response(new ReadableStream({{
            start(stream) {{
                for (const byte of bytes) stream.enqueue(new Uint8Array([byte]));
                stream.close();
            }},
        }}));
    """
    assert node(script + collected(POISON) + PRINT, served) == SAID


def pages(script: str = "") -> dict[str, str]:
    """The examples as they are, the page with a report of what it shows, and a test's own page."""
    files = {file.name: file.read_text(encoding="utf-8") for file in EXAMPLES.glob("*.mjs")}
    shown = (EXAMPLES / "chat.html").read_text(encoding="utf-8")
    watch = """<script type="module">
        const seen = document.querySelector("#answer");
        const body = () => JSON.stringify(seen.textContent);
        const tell = () => fetch("/heard", { method: "POST", body: body() });
        new MutationObserver(tell).observe(seen, { childList: true });
    </script>"""
    imports = 'import { tokens } from "./chat.mjs"; import { ask } from "./simple_reader.mjs";'
    own = f'<script type="module">{imports} let got = [];{script}</script>'
    return {**files, "chat.html": shown + watch, "own.html": '<meta charset="utf-8">' + own}


@needs_browser
def test_the_page_shows_the_answer_in_a_browser(
    served: Service, answer: str, tmp_path: Path
) -> None:
    with browser.opened(
        "chat.html", service_url=served.url, pages=pages(), folder=tmp_path
    ) as site:
        while (shown := site.hear()) != answer:
            assert answer.startswith(shown)


@needs_browser
def test_an_error_in_mid_stream_breaks_no_reader_in_a_browser(
    served: Service, tmp_path: Path
) -> None:
    script = collected(POISON, url='""') + REPORT + "got = [];" + asked_simply(POISON, url='""')
    with browser.opened(
        "own.html", service_url=served.url, pages=pages(script + REPORT), folder=tmp_path
    ) as site:
        heard = [site.hear(), site.hear()]
    assert sorted(heard) == sorted([[*SAID, FAILED], [*SAID, ""]])
