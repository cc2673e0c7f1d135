"""What needs no service: lines cut and checked, forms taken piece by piece, work that gives way."""

import asyncio
import json
from typing import Any

import pytest

from app.core.client_requests import ClientRequests
from app.core.request_kinds import RequestKind
from app.errors import InvalidRequestError, MalformedFormError
from app.features.openai_batches.idle import QUIET_S, IdleCapacity
from app.features.openai_batches.lines import LineChecker, LineCutter
from app.features.openai_batches.upload import UploadParser, plain_name

pytestmark = pytest.mark.core

URL = "/v1/embeddings"
GOOD = {"custom_id": "a", "method": "POST", "url": URL, "body": {"input": "x"}}


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_lines_are_the_same_however_the_file_is_cut(size: int) -> None:
    content = b"first\n\nsecond \r\nlonger than may be\nlast"
    cutter = LineCutter(1_000, 10)
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    cut = [line for piece in pieces for line in cutter.feed(piece)] + list(cutter.finish())
    assert [line for _, line in cut] == [b"first\n", b"\n", b"second \r\n", None, b"last"]
    assert [end for end, _ in cut] == [1_006, 1_007, 1_016, 1_035, 1_039]


def check(*lines: Any, max_lines: int = 50) -> list[tuple[int | None, str, str | None]]:
    checker = LineChecker(URL, max_lines=max_lines, max_bytes=200)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    checker.feed("\n".join(texts).encode())
    checker.finish()
    return [(error.line, error.code, error.param) for error in checker.errors]


def test_each_line_that_is_wrong_is_named_with_its_number_and_field() -> None:
    assert check(GOOD, "", {**GOOD, "custom_id": "b"}) == []
    found = check(
        GOOD,
        "{not json",
        "[]",
        '{"custom_id": NaN}',
        {**GOOD, "custom_id": None},
        {**GOOD, "custom_id": 5},
        {**GOOD, "custom_id": "c", "method": "GET"},
        {**GOOD, "custom_id": "d", "url": "/v1/chat/completions"},
        {**GOOD, "custom_id": "e", "body": []},
        "",
        GOOD,
        "x" * 201,
    )
    assert found == [
        (2, "invalid_json_line", None),
        (3, "invalid_json_line", None),
        (4, "invalid_json_line", None),
        (5, "missing_required_parameter", "custom_id"),
        (6, "invalid_custom_id", "custom_id"),
        (7, "invalid_method", "method"),
        (8, "mismatched_url", "url"),
        (9, "invalid_body", "body"),
        (11, "duplicate_custom_id", "custom_id"),
        (12, "line_too_long", None),
    ]


def test_a_file_without_lines_and_one_with_too_many_are_wrong_as_a_whole() -> None:
    assert check("", " ") == [(None, "empty_file", None)]
    some = [{**GOOD, "custom_id": str(n)} for n in range(4)]
    assert check(*some, max_lines=4) == []
    assert check(*some, max_lines=3) == [(None, "too_many_lines", None)]
    assert len(check(*["{"] * 300, max_lines=500)) == 100  # more help nobody


def form(*parts: tuple[str, bytes], end: bytes = b"--x--\r\n") -> bytes:
    head = b"--x\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n"
    return b"".join(head % (name.encode(), content) for name, content in parts) + end


@pytest.mark.parametrize("size", [1, 5, 1_000])
def test_a_form_is_the_same_however_it_comes(size: int) -> None:
    content = b'{"a": 1}\r\n--y\n' * 3
    body = form(
        ('name="purpose"', b"batch"),
        ('name="file"; filename="in.jsonl"', content),
        ('name="expires_after[seconds]"', b"3600"),
    )
    parser = UploadParser(b"x")
    taken = b""
    for at in range(0, len(body), size):
        parser.feed(body[at : at + size])
        taken += parser.take(4)
    parser.finish()
    assert taken + parser.take(1_000) == content
    assert parser.fields == {"purpose": "batch", "expires_after[seconds]": "3600"}
    assert parser.filename == "in.jsonl"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (form(('name="purpose"', b"batch"), end=b""), MalformedFormError),
        (b"no form at all", MalformedFormError),
        (form(("no-name", b"x")), MalformedFormError),
        (form(('name="purpose"', b"\xff")), MalformedFormError),
        (form(('name="purpose"', b"x" * 5_000)), InvalidRequestError),
        (form(*[('name="file"; filename="a"', b"x")] * 2), InvalidRequestError),
        (form(*[(f'name="f{n}"', b"x") for n in range(17)]), InvalidRequestError),
    ],
)
def test_what_is_no_form_of_ours_is_refused(body: bytes, error: type[Exception]) -> None:
    parser = UploadParser(b"x")
    with pytest.raises(error):  # noqa: PT012  # either may find it
        parser.feed(body)
        parser.finish()


def test_a_filename_keeps_no_folder_and_no_control_character() -> None:
    assert plain_name("C:\\a\\b/../in\0.jsonl") == "in_.jsonl"
    assert plain_name("/") == "upload.jsonl"
    assert len(plain_name("x" * 300)) == 255


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_requests_that_run_models_are_counted_and_for_how_long_there_are_any() -> None:
    clock = Clock()
    kinds = {"/predict": RequestKind.INFERENCE, "POST /": RequestKind.STREAM}
    clients = ClientRequests(kinds | {"/health": RequestKind.PROBE}, clock=clock)
    assert not clients.begin("GET", "/health")
    assert not clients.begin("GET", "/")
    clock.now += 5
    assert (clients.idle_s, clients.busy_s) == (5, 0)
    assert clients.begin("POST", "/predict")
    clock.now += 1
    assert clients.begin("POST", "/")
    clients.end()
    clock.now += 1
    assert (clients.in_flight, clients.idle_s, clients.busy_s) == (1, 0, 2)
    clients.end()
    assert (clients.in_flight, clients.idle_s, clients.busy_s) == (0, 0, 0)


async def test_work_stops_when_clients_stay_and_may_begin_again_when_it_is_quiet() -> None:
    clock = Clock()
    clients = ClientRequests({"/predict": RequestKind.INFERENCE}, clock=clock)
    idle = IdleCapacity(clients, yield_s=1.0)
    clock.now += 2 * QUIET_S
    assert idle.is_idle
    began, stopped = asyncio.Event(), asyncio.Event()

    async def endless() -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return "never"

    work = asyncio.create_task(idle.run(endless))
    await began.wait()
    clients.begin("POST", "/predict")
    assert not idle.is_idle
    assert await idle.run(lambda: asyncio.sleep(0, "short")) == "short"  # may end beside clients
    clock.now += 1.0
    assert await work is None
    assert stopped.is_set()
    clients.end()
    assert not idle.is_idle
    clock.now += 2 * QUIET_S
    assert idle.is_idle
