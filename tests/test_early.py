"""The answers that requests get before there is a task or a parser for them."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.core.metrics import Metrics
from app.core.request_kinds import PathKinds, RequestKind
from app.errors import OverloadedError
from app.http.error_bodies import openai_error, problem
from app.server.early import EarlyRefusal
from app.server.gate import Gate, Place, Reason
from app.server.overload import Overload
from app.server.prepared import PreparedAnswers
from app.server.whole import read_head

pytestmark = pytest.mark.core

BODY = b'{"text":"x"}'
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n"
WHOLE = HEAD + b"\r\n" + BODY


class Clock:
    """The time, as a test says."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def make_overload(*, clock: Clock | None = None, is_full: bool = True) -> Overload:
    gate = Gate(max_in_flight=4, timeout_s=30, now_s=0.0)
    if is_full:
        for _ in range(4):
            gate.begin(Place(RequestKind.INFERENCE), now_s=0.0)
    paths = {"/predict": RequestKind.INFERENCE, "/health": RequestKind.PROBE}
    return Overload(
        gate,
        kinds=PathKinds(paths | {"/v1/embeddings": RequestKind.INFERENCE}),
        metrics=Metrics(),
        is_admin=lambda key: key == "admins",
        is_closing=lambda: False,
        clock=clock or Clock(),
    )


@contextmanager
def connected(sent: bytes) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give a client that has sent something, and the connection that the server accepted."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname(), 10) as client,
    ):
        accepted, _ = listening.accept()
        accepted.settimeout(0)
        client.sendall(sent)
        while sent and not _has(accepted, len(sent)):
            pass
        with accepted:
            yield client, accepted


def _has(accepted: socket.socket, size: int) -> bool:
    try:
        return len(accepted.recv(65_536, socket.MSG_PEEK)) >= min(size, 65_536)
    except BlockingIOError:
        return False


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65_536), b""))


def body_of(answer: bytes) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(body) in head + b"\r\n"
    parsed: dict[str, object] = json.loads(body)
    return parsed


def test_a_prepared_problem_has_the_members_of_every_problem() -> None:
    answer = PreparedAnswers().make(
        b"/predict/a%22b", request_id=b"abc", retry_after_s=7, is_kept=True
    )
    made, expected = (
        body_of(answer),
        problem(OverloadedError(), path="/predict/a%22b", request_id="abc"),
    )
    assert list(made) == list(expected)
    assert len(str(made.pop("timestamp"))) == len(str(expected.pop("timestamp")))
    assert made == expected
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    for line in (b"retry-after: 7", b"x-request-id: abc", b"application/problem+json"):
        assert line in answer
    assert b"connection: close" not in answer


def test_under_v1_it_is_openai_s_error_and_head_has_no_body() -> None:
    answers = PreparedAnswers()
    answer = answers.make(b"/v1/x", request_id=b"a", retry_after_s=1, is_kept=False)
    assert body_of(answer) == openai_error(OverloadedError())
    assert b"connection: close\r\n" in answer
    headless = answers.make(b"/", request_id=b"a", retry_after_s=1, is_kept=True, has_body=False)
    assert headless.endswith(b"\r\n\r\n")
    assert b"content-length: 0" not in headless


def test_a_small_whole_request_of_a_new_connection_is_answered_and_closed() -> None:
    with connected(WHOLE.replace(b"Host: x", b"Host: x\r\nX-Request-ID: my-id")) as (client, taken):
        assert EarlyRefusal(make_overload()).refuse(taken, 0)
        answer = read_all(client)
    assert body_of(answer)["code"] == "overloaded"
    assert b"x-request-id: my-id\r\n" in answer
    assert b"connection: close\r\n" in answer


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        HEAD + b"\r\n" + BODY[:-1],
        WHOLE + WHOLE,
        WHOLE.replace(b"/predict", b"/health"),
        WHOLE.replace(b"Host: x", b"Host: x\r\nExpect: 100-continue"),
        WHOLE.replace(b"Host: x", b"Host: x\r\nAuthorization: Bearer admins"),
        b"\x16\x03\x01",
    ],
)
def test_what_isn_t_one_or_may_come_in_goes_the_ordinary_way_untouched(sent: bytes) -> None:
    with connected(sent) as (_, taken):
        assert not EarlyRefusal(make_overload()).refuse(taken, 0)
        if sent:
            assert taken.recv(65_536) == sent


def test_where_there_is_a_place_nothing_is_refused_unless_others_are_about_to_take_it() -> None:
    overload = make_overload(is_full=False)
    with connected(WHOLE) as (_, taken):
        assert not EarlyRefusal(overload).refuse(taken, 3)
        assert EarlyRefusal(overload).refuse(taken, 4)


def test_a_client_that_has_left_is_closed_without_an_answer() -> None:
    overload = make_overload()
    with connected(WHOLE) as (client, taken):
        client.shutdown(socket.SHUT_WR)
        while taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 1:
            pass
        assert EarlyRefusal(overload).refuse(taken, 0)
        assert taken.fileno() < 0
    assert not overload.is_refusing()


@pytest.mark.parametrize(
    "sent",
    [
        WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        WHOLE.replace(b"Content-Length: 12", b"Content-Length: 12\r\nContent-Length: 12"),
        WHOLE.replace(b"Content-Length: 12", b"Content-Length: +12"),
        WHOLE.replace(b"Content-Length: 12", b"Transfer-Encoding: chunked"),
        WHOLE.replace(b"Host: x", b"Host"),
        WHOLE.replace(b"Content-Length:", b"Content-Length :"),
        WHOLE.replace(b"Content-Length: 12", b"Transfer-Encoding : chunked"),
        WHOLE.replace(b"Host: x", b"Host: x\r\n Transfer-Encoding: chunked"),
        WHOLE.replace(b"Host: x", b"Host: x\nTransfer-Encoding: chunked"),
        WHOLE.replace(b"POST", b"post"),
    ],
)
def test_a_request_whose_end_isn_t_certain_is_left_to_the_parser(sent: bytes) -> None:
    assert read_head(WHOLE) is not None
    assert read_head(sent) is None


def refused(overload: Overload, kind: str = "inference", reason: str = "full") -> float | None:
    return overload._metrics.registry.get_sample_value(
        "mlapi_front_refused_total", {"kind": kind, "reason": reason}
    )


def test_refusals_are_counted_by_reason_and_logged_once_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    overload, head = make_overload(clock=clock), read_head(WHOLE)
    assert head is not None
    assert refused(overload) == 0
    for second in range(3):
        clock.now_s = second + second * 0.01
        for _ in range(10):
            assert isinstance(overload.let_in(RequestKind.INFERENCE, head.headers), Reason)
    assert refused(overload) == 30
    logged = [r for r in caplog.records if r.message == "requests_refused"]
    assert [r.requests for r in logged] == [1, 10, 10]  # type: ignore[attr-defined]
    assert overload.is_refusing()
    clock.now_s += 60
    assert not overload.is_refusing()


def test_a_long_timeout_or_a_wrong_one_is_no_error_here() -> None:
    overload = make_overload(is_full=False)
    for value in (b"1000", b"1" * 5_000, b"x", b"-1", b""):
        sent = WHOLE.replace(b"Host: x", b"Host: x\r\nX-Request-Timeout-Ms: " + value)
        head = read_head(sent)
        assert head is not None
        assert isinstance(overload.let_in(RequestKind.INFERENCE, head.headers), Place)
