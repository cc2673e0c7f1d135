"""Commands that use a running service, and `app jobs`."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import process
import pytest
import typer
from commands import run
from process import APP, Service, environment, service
from typer.testing import CliRunner

from app.cli.main import EXIT_UNFINISHED, cli
from app.console import client
from app.console.client import Client, NoServiceError

DOCUMENT = Path(__file__).parent.parent / "docs" / "cli.md"
KEY = "an admin's key, of sixteen"
MODELS = """
[[models]]
name = "dummy"
engine = "fake"
required = true
default = true
fake = { fail_on = "poison" }

[[models]]
name = "echo"
task = "chat"
engine = "fake"
required = true
default = true
fake = { delay_ms = 1 }

[[models]]
name = "slow"
task = "chat"
engine = "fake"
required = true
fake = { delay_ms = 200 }

[[models]]
name = "broken"
task = "chat"
engine = "fake"
required = true
fake = { fail_after = 2 }

[[models]]
name = "bytes"
task = "embedding"
engine = "fake"
required = true
default = true
fake = { fail_on = "poison" }
"""
TIMEOUT_S = 60
HEAVY = ("torch", "fastapi", "langchain", "transformers", "openvino", "sqlalchemy", "numpy")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service that all these commands use; it wants a key."""
    folder = tmp_path_factory.mktemp("served")
    with service(folder, MODELS, auth="required", admin_key=KEY, jobs="on") as running:
        running.wait_ready()
        yield running
        running.stop()


def app(
    served: Service, *arguments: str, stdin: str = "", **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command, by default with the service's address and key."""
    variables = {"app_url": served.url, "app_key": KEY, "columns": 80} | settings
    return run(served.log_file.parent, *arguments, stdin=stdin, **variables)


def printed(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a command printed that went well."""
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def objects(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed(done).splitlines()]


def failed(done: subprocess.CompletedProcess[str], status: int) -> str:
    """Return the one line that says why a command ended with a status."""
    assert done.returncode == status, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("ml-api: error: ")
    return line.removeprefix("ml-api: error: ")


def submitted(served: Service, *texts: str, **more: str) -> str:
    """Submit a job; return its id."""
    documents = [{"id": f"{hash(text):x}", "text": text} for text in texts]
    got = httpx2.post(
        f"{served.url}/embed-batch",
        json={"documents": documents, **more},
        headers={"X-API-Key": KEY},
    )
    assert got.status_code == 202, got.text
    return str(got.json()["job_id"])


# predict


def test_predict_prints_the_label_and_its_share(served: Service) -> None:
    variables = {"app_url": served.url, "app_key": KEY}
    in_a_process = process.run(served.log_file.parent, "predict", "Good.", **variables)
    assert re.fullmatch(r"(POSI|NEGA)TIVE +\d+\.\d%\n", printed(in_a_process))
    assert printed(app(served, "predict", "Good.")) == in_a_process.stdout


def test_predict_prints_the_best_labels_below_each_other(served: Service) -> None:
    lines = printed(app(served, "predict", "Good.", "--top-k", "2")).splitlines()
    assert {line.split()[0] for line in lines} == {"POSITIVE", "NEGATIVE"}
    assert sum(float(line.split()[1].rstrip("%")) for line in lines) == pytest.approx(100, abs=0.2)


def test_predict_prints_what_the_service_answered_as_json(served: Service) -> None:
    (line,) = objects(app(served, "predict", "Gut, 😀", "--json", "--model", "dummy"))
    assert (line["text"], line["model"]) == ("Gut, 😀", "dummy")


def test_predict_classifies_each_line_of_the_input_in_order(served: Service) -> None:
    texts = [f"text {n}" for n in range(600)]
    lines = printed(app(served, "predict", "-", stdin="\n".join(texts))).splitlines()
    assert [line.split("\t")[2] for line in lines] == texts
    assert {line.split("\t")[0] for line in lines} == {"POSITIVE", "NEGATIVE"}
    assert all(0.5 <= float(line.split("\t")[1]) <= 1 for line in lines)


def test_a_line_that_fails_is_marked_and_the_others_are_done(served: Service) -> None:
    done = app(served, "predict", "-", "--json", stdin="good\npoison\nbad\n")
    assert failed(done, 6) == "1 of the lines could not be classified"
    one, two, three = map(json.loads, done.stdout.splitlines())
    assert (one["text"], three["text"]) == ("good", "bad")
    assert two["error"]["code"] == "inference_failed"
    plain = app(served, "predict", "-", stdin="poison\n").stdout
    assert plain == "error\tinference_failed\tpoison\n"


def test_long_lines_are_sent_in_requests_that_the_service_takes(served: Service) -> None:
    texts = [f"{n} " + "é" * 1_990 for n in range(700)]  # 2.8 MB, in bodies of 1 MiB at most
    done = app(served, "predict", "-", stdin="\n".join(texts))
    assert [line.split("\t")[2] for line in printed(done).splitlines()] == texts


def test_a_line_that_no_request_takes_is_marked_and_the_others_are_done(served: Service) -> None:
    long = '"x' * 200_000
    done = app(served, "predict", "-", stdin=f"good\n{long}\nbad\n")
    assert failed(done, 6) == "1 of the lines could not be classified"
    one, two, three = done.stdout.splitlines()
    assert two == f"error\ttext_too_long\t{long}"
    assert [line.split("\t")[2] for line in (one, three)] == ["good", "bad"]


def test_no_lines_are_no_error(served: Service) -> None:
    assert printed(app(served, "predict", "-", stdin="")) == ""


def test_a_blank_line_has_its_place_among_the_answers_and_fails_nothing(served: Service) -> None:
    lines = printed(app(served, "predict", "-", stdin="\ngood\n \n\nbad\n")).split("\n")
    assert [line.split("\t")[-1] for line in lines] == ["", "good", "", "", "bad", ""]
    assert [line for line in lines if line.startswith("error")] == ["error\ttext_empty\t"] * 3
    rows = objects(app(served, "predict", "-", "--json", stdin="good\n\n"))
    assert [row["text"] for row in rows] == ["good", ""]
    assert rows[1]["error"]["code"] == "text_empty"


def test_json_says_which_texts_were_cut(served: Service) -> None:
    rows = objects(app(served, "predict", "-", "--json", stdin=f"short\n{'long ' * 200}\n"))
    assert [row["truncated"] for row in rows] == [False, True]


def test_bytes_that_are_no_utf_8_end_nothing(served: Service) -> None:
    done = subprocess.run(
        [APP, "predict", "-"],
        env=environment(served.log_file.parent, app_url=served.url, app_key=KEY),
        input=b"caf\xe9\n",
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_top_k_goes_with_one_text_only(served: Service) -> None:
    done = app(served, "predict", "-", "--top-k", "2")
    assert done.returncode == 2
    assert "goes with a single text" in done.stderr


# chat


def test_chat_answers_a_question_and_ends(served: Service) -> None:
    assert printed(app(served, "chat", "one zwei 😀")) == "one zwei 😀\n"
    assert printed(app(served, "chat", "-", stdin="all of\nthe input")) == "all of the input\n"


def test_chat_answers_each_line_of_the_input_and_remembers_the_others(served: Service) -> None:
    done = app(served, "chat", "--json", "--system", "Be brief.", stdin="one\n\ntwo three\n")
    first, second = objects(done)
    assert (first["answer"], second["answer"]) == ("one", "two three")
    assert first["finish_reason"] == second["finish_reason"] == "stop"
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"] + 2


def test_chat_passes_its_options_on(served: Service) -> None:
    (answer,) = objects(app(served, "chat", "a b c d", "--json", "--max-tokens", "2"))
    assert (answer["answer"], answer["finish_reason"]) == ("a b", "length")


def test_an_answer_that_breaks_off_says_why(served: Service) -> None:
    done = app(served, "chat", "one two three", "--model", "broken")
    assert failed(done, 1).startswith("The engine failed on this input. (request ")
    assert done.stdout == "one two\n"


def hear_ctrl_c() -> None:
    """What runs in the background of a shell is born deaf to Ctrl-C; so may these tests be."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A command on a terminal: what it prints, and who types."""

    def __init__(self, served: Service, *arguments: str) -> None:
        self.master, self.slave = pty.openpty()
        self._output = ""
        name = os.ttyname(self.slave)
        # Whoever leads a session and opens a terminal has it, with its Ctrl-C.
        open_it = ["sh", "-c", 'tty=$1; shift; exec "$@" <"$tty" >"$tty" 2>&1', "sh", name]
        self.process = subprocess.Popen(
            [*open_it, APP, *arguments],
            env=environment(
                served.log_file.parent, app_url=served.url, app_key=KEY, term="xterm", columns=100
            ),
            start_new_session=True,
            preexec_fn=hear_ctrl_c,  # noqa: PLW1509  # it does nothing else
        )

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait_for(self, pattern: str) -> str:
        """Read until something is printed; return all up to there."""
        until = time.monotonic() + TIMEOUT_S
        while not (match := re.search(pattern, self._output)):
            ready, _, _ = select.select([self.master], [], [], until - time.monotonic())
            assert ready, self._output
            self._output += os.read(self.master, 4096).decode()
        text, self._output = self._output[: match.end()], self._output[match.end() :]
        return text

    def leave(self) -> int:
        """Press Ctrl-C, again where it wasn't heard; return the exit status.

        CPython's `input()` misses one that comes between its prompt and its wait for a key.
        """
        until = time.monotonic() + TIMEOUT_S
        while time.monotonic() < until:
            self.type("\x03")
            with suppress(subprocess.TimeoutExpired):
                return self.process.wait(5)
        raise AssertionError(self._output)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(TIMEOUT_S)
        os.close(self.master)
        os.close(self.slave)


@contextmanager
def terminal(served: Service, *arguments: str) -> Iterator[Terminal]:
    terminal = Terminal(served, *arguments)
    try:
        yield terminal
    finally:
        terminal.close()


def active(served: Service) -> float:
    """Return how many generations run."""
    text = httpx2.get(f"{served.url}/metrics").text
    values = re.findall(r"^mlapi_generations_active\{.*\} (\S+)$", text, re.MULTILINE)
    return sum(map(float, values))


def test_a_person_talks_stops_an_answer_hears_of_an_error_and_leaves(served: Service) -> None:
    with terminal(served, "chat", "--model", "slow") as person:
        person.wait_for("you> ")
        person.type("one two\n")
        person.wait_for(r"\none two\r\n.*you> ")
        person.type(" ".join("abcdefghijklmnopqrstuvwxyz") + "\n")
        person.wait_for(r"\na b")
        assert active(served) == 1
        person.type("\x03")
        person.wait_for(r"\(stopped\)\r\n.*you> ")
        while active(served):
            time.sleep(0.02)  # between two questions to another process there is nothing to wait on
        person.type("\n")
        person.wait_for("you> ")
        person.type("\x04")
        assert person.process.wait(TIMEOUT_S) == 0


def test_an_error_does_not_end_a_conversation_and_ctrl_c_does(served: Service) -> None:
    with terminal(served, "chat", "--model", "broken") as person:
        person.wait_for("you> ")
        person.type("one two three\n")
        person.wait_for(r"ml-api: error: The engine failed[^\n]*\n.*you> ")
        assert person.leave() == 130


# jobs and search


def test_a_job_is_watched_to_its_end_and_what_it_embedded_is_found(served: Service) -> None:
    job_id = submitted(served, *(f"text number {n}" for n in range(100)))
    lines = printed(app(served, "jobs", "watch", job_id)).splitlines()
    assert all(re.fullmatch(r"\w+ \d+ % \(\d+ of 100\)", line) for line in lines)
    assert lines[-1] == "succeeded 100 % (100 of 100)"
    lines = printed(app(served, "search", "text number 7", "--top-k", "1")).splitlines()
    assert re.fullmatch(r"[\d.]+  -?[0-9a-f]+", lines[0])
    assert re.fullmatch(r" {7}text number \d+", lines[1])
    (result,) = objects(app(served, "search", "text number 7", "--top-k", "1", "--json"))
    assert result["passage"]["text"] == result["text"] == lines[1].strip()
    assert printed(app(served, "search", "x", "--filter", '{"lang": "none"}')) == ""


def test_a_watched_job_is_a_bar_on_a_terminal(served: Service) -> None:
    job_id = submitted(served, *(f"more {n}" for n in range(100)))
    with terminal(served, "jobs", "watch", job_id) as person:
        text = person.wait_for(r"succeeded.*100/100")
        assert "━" in text
        assert person.process.wait(TIMEOUT_S) == 0


def test_a_watched_job_is_json_for_scripts(served: Service) -> None:
    jobs = objects(app(served, "jobs", "watch", submitted(served, "some text"), "--json"))
    assert jobs[-1]["status"] == "succeeded"
    assert [job["progress"]["done"] for job in jobs] == sorted(
        job["progress"]["done"] for job in jobs
    )


def test_a_job_that_fails_says_which_documents_did(served: Service) -> None:
    job_id = submitted(served, "fine", "poison")
    done = app(served, "jobs", "watch", job_id)
    assert done.returncode == 8
    assert done.stdout.splitlines()[-1] == "failed 100 % (2 of 2)"
    first, second = done.stderr.splitlines()
    assert first.startswith("ml-api: error: the job failed: 1 of 2 documents failed")
    assert re.fullmatch(r"  -?[0-9a-f]+: inference_failed", second)


def test_jobs_are_listed_newest_first(served: Service) -> None:
    ids = [submitted(served, f"text {n}") for n in range(2)]
    for job_id in ids:
        app(served, "jobs", "watch", job_id)
    lines = printed(app(served, "jobs", "list", "--limit", "2")).splitlines()
    assert [line.split()[:3] for line in lines] == [[i, "succeeded", "1/1"] for i in ids[::-1]]
    (job,) = objects(app(served, "jobs", "list", "--limit", "1", "--json"))
    assert (job["id"], job["model"]) == (ids[1], "bytes")
    assert printed(app(served, "jobs", "list", "--status", "cancelled")) == ""


def test_the_secret_of_webhooks_is_printed_alone_and_is_always_the_same(served: Service) -> None:
    (secret,) = printed(app(served, "jobs", "secret")).splitlines()
    assert len(secret) == 43
    assert printed(app(served, "jobs", "secret")) == f"{secret}\n"
    secret = "a secret of the setting"
    assert printed(app(served, "jobs", "secret", webhook_secret=secret)) == f"{secret}\n"
    standard = "whsec_YSBzZWNyZXQgb2YgdGhlIHNldHRpbmc="
    for given in (secret, standard):
        told = printed(app(served, "jobs", "secret", "--standard", webhook_secret=given))
        assert told == f"{standard}\n"


def test_keys_and_models_are_json_for_scripts(served: Service) -> None:
    options = ("--name", "web", "--scopes", "predict,chat", "--json")
    (key,) = objects(app(served, "keys", "create", *options))
    assert printed(app(served, "predict", "x", app_key=key["key"]))
    listed = objects(app(served, "keys", "list", "--json"))
    assert {name: key[name] for name in listed[0]} == listed[0]
    models = objects(app(served, "models", "list", "--json"))
    assert {model["name"]: model["task"] for model in models}["minilm"] == "embedding"


# What goes wrong


def test_without_a_service_it_says_how_to_start_one(served: Service) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        for command in (("predict", "x"), ("chat", "x"), ("search", "x"), ("jobs", "list")):
            message = failed(app(served, *command, app_url=url), 3)
            assert message.startswith(f"nothing answers at {url} (Connection refused): ")
            assert "`make serve`" in message


@pytest.mark.parametrize(
    ("settings", "status", "message"),
    [
        ({"app_url": "localhost:8000"}, 2, "APP_URL: 'localhost:8000' is no address such as"),
        ({"app_url": "http://"}, 2, "APP_URL: 'http://' is no address such as"),
        ({"app_url": "{url}/docs"}, 5, "The service has no /docs/predict: is APP_URL its address"),
        ({"app_key": ""}, 4, "The service wants a key: put it in APP_KEY"),
        ({"app_key": "wrong"}, 4, "The service refuses the key in APP_KEY"),
        ({"app_key": "schlüssel"}, 4, "APP_KEY: has characters that no key has"),
    ],
)
def test_a_wrong_address_and_a_wrong_key_are_told_apart(
    served: Service, settings: dict[str, str], status: int, message: str
) -> None:
    variables = {name: value.replace("{url}", served.url) for name, value in settings.items()}
    assert failed(app(served, "predict", "x", **variables), status).startswith(message)


def test_a_key_without_the_scope_is_told_which_one(served: Service) -> None:
    response = httpx2.post(
        f"{served.url}/keys",
        json={"name": "web", "scopes": ["predict"]},
        headers={"X-API-Key": KEY},
    )
    assert "'chat'" in failed(app(served, "chat", "x", app_key=response.json()["key"]), 4)


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        (("predict", "x", "--model", "nobody"), 5, "There is no such model"),
        (("chat", "x", "--model", "nobody"), 5, "There is no such model"),
        (("jobs", "watch", "job_nobody"), 5, "There is no such job"),
        (("jobs", "watch", "../x"), 5, "The service has no /jobs/"),
        (("predict", ""), 6, "text: String should have at least 1 character"),
        (("jobs", "list", "--status", "done"), 6, "status: Input should be 'queued'"),
        (("search", "x", "--filter", '{"a": [1]}'), 6, "filter.a: "),
        (("predict", "poison"), 1, "The engine failed on this input. (request "),
    ],
)
def test_what_the_service_refuses_is_one_sentence_and_a_status(
    served: Service, command: tuple[str, ...], status: int, message: str
) -> None:
    assert failed(app(served, *command), status).startswith(message)


NOT_UTF_8 = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize(
    "command",
    [
        ("predict", NOT_UTF_8),
        ("predict", "x", "--model", NOT_UTF_8),
        ("chat", NOT_UTF_8),
        ("chat", "x", "--system", NOT_UTF_8),
        ("search", NOT_UTF_8),
        ("jobs", "list", "--status", NOT_UTF_8),
    ],
)
def test_an_argument_that_is_no_utf_8_is_wrong_usage(
    served: Service, command: tuple[str, ...]
) -> None:
    message = failed(app(served, *command), 2)
    assert message == "an argument is not UTF-8, and can't be sent"


def test_an_id_and_an_address_that_are_no_utf_8_are_refused_too(served: Service) -> None:
    assert failed(app(served, "jobs", "watch", NOT_UTF_8), 6).startswith("job_id: ")
    url = f"{served.url}/{NOT_UTF_8}"
    assert failed(app(served, "predict", "x", app_url=url), 2).startswith("APP_URL: ")


@pytest.mark.parametrize(
    "text",
    [
        "lang=en",
        "[]",
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        f'{{"a": "{NOT_UTF_8}"}}',
        "[" * 100_000,
    ],
    ids=range(7),
)
def test_a_filter_that_is_no_json_is_wrong_usage(served: Service, text: str) -> None:
    done = app(served, "search", "x", "--filter", text)
    assert done.returncode == 2
    assert "is no JSON object" in done.stderr


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """A server that answers each connection with the next of these bytes, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += connection.recv(65_536)
                    connection.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.join(TIMEOUT_S)


def response(status: str, body: str, *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", body)
    return "\r\n".join(lines).encode()


BUSY = json.dumps({"status": 429, "code": "rate_limited", "detail": "Too much."})


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (response("429 X", BUSY, "Retry-After: 7"), 7, "Too much. Try again in 7 s."),
        (response("200 OK", "<html>"), 3, "{url} answers, but it isn't this service"),
        (response("200 OK", "[]"), 3, "{url} answers, but it isn't this service"),
        (response("502 X", "<html>"), 7, "something before the service answers 502; try again"),
        (response("503 X", ""), 7, "something before the service answers 503; try again"),
        (response("504 X", "[]"), 7, "something before the service answers 504; try again"),
        (response("500 X", "<html>"), 3, "{url} answers, but it isn't this service"),
        (response("404 X", "{}"), 3, "{url} answers, but it isn't this service"),
        (
            response("308 X", "", "Location: https://x.example/"),
            3,
            "{url} sends on to https://x.example/: set APP_URL to that address",
        ),
        (response("200 OK", '{"text":')[:-4], 3, "the connection to {url} broke off"),
        (b"SSH-2.0\r\n", 3, "the connection to {url} broke off"),
    ],
)
def test_whatever_answers_is_one_sentence_and_a_status(
    served: Service, answer: bytes, status: int, message: str
) -> None:
    with answering(answer) as url:
        assert failed(app(served, "predict", "x", app_url=url), status).startswith(
            message.format(url=url)
        )


def test_when_to_try_again_is_said_once(served: Service) -> None:
    problem = {**json.loads(BUSY), "detail": "The limit of 3 is used up; try again in 60 s."}
    with answering(response("429 X", json.dumps(problem), "Retry-After: 60")) as url:
        message = failed(app(served, "predict", "x", app_url=url), 7)
    assert message == "The limit of 3 is used up; try again in 60 s."


def test_a_service_that_says_nothing_is_not_waited_for_without_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, None, silence_s=0.05) as client, pytest.raises(NoServiceError) as caught:
            client.get("/jobs")
    assert str(caught.value) == f"{url} doesn't answer"


def event(status: str, done: int, name: str = "job") -> str:
    progress = {"done": done, "failed": 0, "total": 2}
    return f"event: {name}\ndata: {json.dumps({'status': status, 'progress': progress})}\n\n"


def test_watching_goes_on_when_the_service_was_replaced(served: Service) -> None:
    stream = "HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n: \n\n"
    draining = 'event: error\ndata: {"status": 503, "code": "not_ready", "detail": "x"}\n\n'
    first = (stream + event("queued", 0) + event("running", 1) + draining).encode()
    second = (stream + event("succeeded", 2)).encode()
    with answering(first, second) as url:
        text = printed(app(served, "jobs", "watch", "job_1", app_url=url))
    assert text == "queued 0 % (0 of 2)\nrunning 50 % (1 of 2)\nsucceeded 100 % (2 of 2)\n"


def test_what_a_model_says_does_not_steer_the_terminal(served: Service) -> None:
    assert printed(app(served, "chat", "a\x1b[31m\x07 b")) == "a[31m b\n"


TEXTS = {
    "blanks": "a\u00a0b\u202fc\u3000d\u2003e",
    "Persian": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "a family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "a soft hyphen, marks, a character of one's own": "a\u00adb\u200fc\ufeffd\ue000",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_texts_of_all_scripts_are_printed_as_they_are(served: Service, text: str) -> None:
    line = printed(app(served, "predict", "-", stdin=f"{text}\n"))
    assert line.removesuffix("\n").split("\t")[2] == text


def test_tokens_of_all_scripts_are_printed_as_they_are(served: Service) -> None:
    text = f"{TEXTS['Persian']} {TEXTS['a family']}"
    assert printed(app(served, "chat", text)) == f"{text}\n"


def test_marks_that_turn_the_direction_of_what_follows_are_not_printed(served: Service) -> None:
    text = "a\u202eb\u2066c\u2069d\u202ae\x9bf"
    assert printed(app(served, "chat", text)) == "abcdef\n"


def test_what_a_problem_says_does_not_steer_the_terminal(served: Service) -> None:
    problem = {"status": 422, "code": "x", "detail": "a\x1b]0;title\x07 b\x9b2J"}
    with answering(response("422 X", json.dumps(problem))) as url:
        assert failed(app(served, "predict", "x", app_url=url), 6) == "a]0;title b2J"


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(served: Service) -> None:
    assert printed(app(served, "predict", "x", http_proxy="http://127.0.0.1:9"))


@pytest.mark.parametrize("command", [("predict", "x"), ("chat", "x"), ("search", "x")])
def test_client_commands_import_nothing_heavy(served: Service, command: tuple[str, ...]) -> None:
    variables = {"app_url": served.url, "app_key": KEY, "pythonprofileimporttime": "1"}
    done = process.run(served.log_file.parent, *command, **variables)
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "httpx2" in imported
    assert imported.isdisjoint(HEAVY)


# Help


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Give the path of every command that does something."""
    group = group or typer.main.get_command(cli)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_help_fits_a_screen_and_has_an_example(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*command, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert "Example: " in result.stdout


def test_the_document_names_every_command_and_every_exit_status() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for command in commands():
        assert f"app {' '.join(command)}" in text, command
    documented = set(map(int, re.findall(r"^\| (\d+) \|", text, re.MULTILINE)))
    constants = {name: value for name, value in vars(client).items() if name.startswith("EXIT_")}
    statuses = {value for value in constants.values() if isinstance(value, int)}
    assert documented == statuses | {0, EXIT_UNFINISHED, 130}
