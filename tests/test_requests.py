"""What is no request, or a doubtful one, sent to a real server over a socket."""

import json
import re
import socket
from collections.abc import Iterator

import pytest
from process import Service, service
from serving import FAKE

from app.server.request_head import MAX_HEADERS, MAX_TARGET_BYTES

pytestmark = pytest.mark.core

HOST = b"Host: x\r\n"
LAST = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
BODY = b'{"text":"x"}'
TIMEOUT_S = 10
# Of two answers to the same question these differ.
OF_ONE_ANSWER = {"date", "x-request-id"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("service"), FAKE) as started:
        started.wait_ready()
        yield started


def exchange(port: int, *parts: bytes) -> bytes:
    """Send, and return all that comes until the connection ends."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        for part in parts:
            connection.sendall(part)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def get(headers: bytes = HOST, *, target: bytes = b"/health", version: bytes = b"1.1") -> bytes:
    return b"GET " + target + b" HTTP/" + version + b"\r\n" + headers + b"\r\n"


def post(headers: bytes, body: bytes = b"") -> bytes:
    kind = b"Content-Type: application/json\r\n"
    return b"POST /predict HTTP/1.1\r\n" + HOST + kind + headers + b"\r\n" + body


CHUNKED = post(b"Transfer-Encoding: chunked\r\n")


def split(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


NO_REQUESTS: dict[str, tuple[bytes, int, str]] = {
    "no Host": (get(b""), 400, "bad_request"),
    "two Hosts": (get(HOST * 2), 400, "bad_request"),
    "a Host that is none": (get(b"Host: a/b@c\r\n"), 400, "bad_request"),
    "two lengths": (post(b"Content-Length: 1\r\nContent-Length: 1\r\n", b"x"), 400, "bad_request"),
    "two lengths that differ": (
        post(b"Content-Length: 1\r\nContent-Length: 2\r\n", b"xx"),
        400,
        "bad_request",
    ),
    "a list of lengths": (post(b"Content-Length: 1, 1\r\n", b"x"), 400, "bad_request"),
    "a length and an encoding": (
        post(b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        400,
        "bad_request",
    ),
    "an encoding and a length": (
        post(b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", b"0\r\n\r\n"),
        400,
        "bad_request",
    ),
    "a length with a plus": (post(b"Content-Length: +1\r\n", b"x"), 400, "bad_request"),
    "a negative length": (post(b"Content-Length: -1\r\n", b"x"), 400, "bad_request"),
    "no number as length": (post(b"Content-Length: 0x1\r\n", b"x"), 400, "bad_request"),
    "an empty length": (post(b"Content-Length:\r\n", b"x"), 400, "bad_request"),
    "a length beyond 64 bits": (
        post(b"Content-Length: " + b"9" * 30 + b"\r\n"),
        400,
        "bad_request",
    ),
    "another encoding": (
        post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
        501,
        "transfer_encoding_unsupported",
    ),
    "an encoding alone": (
        post(b"Transfer-Encoding: gzip\r\n", b"x"),
        501,
        "transfer_encoding_unsupported",
    ),
    "an encoding's look-alike": (
        post(b"Transfer-Encoding: xchunked\r\n", b"x"),
        501,
        "transfer_encoding_unsupported",
    ),
    "chunked twice": (
        post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        400,
        "bad_request",
    ),
    "chunks in HTTP/1.0": (
        post(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n").replace(b"/1.1", b"/1.0"),
        400,
        "bad_request",
    ),
    "a folded line": (get(HOST + b"A: b\r\n c\r\n"), 400, "bad_request"),
    "a blank before the colon": (get(HOST + b"A : b\r\n"), 400, "bad_request"),
    "a blank before the first header": (get(b" A: b\r\n" + HOST), 400, "bad_request"),
    "a bare CR": (get(HOST + b"A: b\rc\r\n"), 400, "bad_request"),
    "bare LFs": (b"GET /health HTTP/1.1\nHost: x\n\n", 400, "bad_request"),
    "a name that is none": (get(HOST + b"A(b: c\r\n"), 400, "bad_request"),
    "no name": (get(HOST + b": c\r\n"), 400, "bad_request"),
    "no colon": (get(HOST + b"Abc\r\n"), 400, "bad_request"),
    "a NUL": (get(HOST + b"A: b\0c\r\n"), 400, "bad_request"),
    "a target that is none": (get(target=b"/\xff"), 400, "bad_request"),
    "two targets": (get(target=b"/a b"), 400, "bad_request"),
    "a method that is none": (get().replace(b"GET", b"get"), 400, "bad_request"),
    "what is meant for a proxy": (
        b"CONNECT x:443 HTTP/1.1\r\n" + HOST + b"\r\n",
        400,
        "bad_request",
    ),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500, 400, "bad_request"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9, 400, "bad_request"),
    "HTTP/2 in words": (get(version=b"2.0"), 505, "http_version_unsupported"),
    "HTTP/1.2": (get(version=b"1.2"), 400, "bad_request"),
    "HTTP/0.9": (b"GET /health\r\n\r\n", 505, "http_version_unsupported"),
    "a large header": (get(HOST + b"A: " + b"a" * 66_000 + b"\r\n"), 431, "headers_too_large"),
    "many headers": (get(HOST + b"A: b\r\n" * MAX_HEADERS), 431, "headers_too_large"),
    "large headers": (
        get(HOST + (b"A: " + b"a" * 9000 + b"\r\n") * 8),
        431,
        "headers_too_large",
    ),
    "a header without end": (b"GET / HTTP/1.1\r\nA: " + b"a" * 300_000, 431, "headers_too_large"),
    "a long target": (get(target=b"/" + b"a" * MAX_TARGET_BYTES), 414, "target_too_long"),
    "a target without end": (b"GET /" + b"a" * 300_000, 414, "target_too_long"),
    "a negative chunk": (CHUNKED + b"-1\r\nx\r\n0\r\n\r\n", 400, "bad_request"),
    "a chunk beyond 64 bits": (CHUNKED + b"f" * 17 + b"\r\nx\r\n0\r\n\r\n", 400, "bad_request"),
    "a chunk with a bare LF": (CHUNKED + b"1\nx\n0\n\n", 400, "bad_request"),
    "a chunk that is longer than it says": (
        CHUNKED + b"1\r\nxx\r\n0\r\n\r\n",
        400,
        "bad_request",
    ),
}


@pytest.mark.parametrize("name", NO_REQUESTS)
def test_what_is_no_request_is_told_why_and_the_connection_ends(
    running: Service, name: str
) -> None:
    sent, status, code = NO_REQUESTS[name]
    found, headers, body = split(exchange(running.port, sent))
    assert (found, headers["connection"]) == (status, "close")
    assert headers["content-type"] == "application/problem+json"
    assert int(headers["content-length"]) == len(body)
    told = json.loads(body)
    assert (told["status"], told["code"]) == (status, code)
    assert told["request_id"] == headers["x-request-id"]
    running.wait_logged(f'"request_id": "{told["request_id"]}"')
    assert exchange(running.port, LAST).startswith(b"HTTP/1.1 200 ")


def test_under_v1_it_is_told_as_openai_does(running: Service) -> None:
    answer = exchange(running.port, get(b"", target=b"/v1/models?secret"))
    status, headers, body = split(answer)
    assert (status, headers["content-type"]) == (400, "application/json")
    assert json.loads(body)["error"]["code"] == "bad_request"
    assert b"secret" not in answer


REQUESTS: dict[str, bytes] = {
    "HTTP/1.0 without a Host": get(b"", version=b"1.0"),
    "an empty Host": get(b"Host:\r\n"),
    "an IPv6 Host": get(b"Host: [::1]:8000\r\n"),
    "an absolute target": get(target=b"http://x/health"),
    "empty lines before it": b"\r\n\r\n" + get(),
    "many headers, but not too many": get(HOST + b"A: b\r\n" * (MAX_HEADERS - 2)),
    "a large header, but not too large": get(HOST + b"A: " + b"a" * 60_000 + b"\r\n"),
    "a long target, but not too long": get(target=b"/health?" + b"a" * (MAX_TARGET_BYTES - 8)),
    "a chunked body with extensions and trailers": post(
        b"Transfer-Encoding: Chunked\r\n", b"c;a=b\r\n" + BODY + b"\r\n0\r\nA: b\r\n\r\n"
    ),
    "a websocket's upgrade": get(
        HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nA: " + b"a" * 9_000 + b"\r\n"
    ),
    "an upgrade with a body, as Java's client asks": post(
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        b"Content-Length: %d\r\n" % len(BODY),
        BODY,
    ),
    "an upgrade with a body in chunks": post(
        b"Upgrade: h2c\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n",
        b"c\r\n" + BODY + b"\r\n0\r\n\r\n",
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_unusual_is_answered_and_what_follows_it_too(running: Service, name: str) -> None:
    sent = REQUESTS[name]
    parts = [sent] if b"/1.0" in sent else [sent, LAST]
    answer = exchange(running.port, *parts)
    assert answer.count(b"HTTP/1.1 200 OK") == len(parts)
    assert b" 101 " not in answer
    assert exchange(running.port, b"".join(parts)).count(b"HTTP/1.1 200 OK") == len(parts)
    assert exchange(running.port, get(), *parts).count(b"HTTP/1.1 200 OK") == len(parts) + 1


def test_the_whole_server_is_asked_as_its_root_is_and_what_follows_is_answered(
    running: Service,
) -> None:
    whole, root = (
        exchange(running.port, get(target=target), LAST) for target in (b"http://x", b"/")
    )
    assert whole.splitlines()[0] == root.splitlines()[0]
    assert whole.count(b'{"status":"ok"}') == root.count(b'{"status":"ok"}') == 1


def test_many_upgrades_at_once_are_as_many_requests(running: Service) -> None:
    upgrade = get(HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
    assert exchange(running.port, upgrade * 2_000 + LAST).count(b"HTTP/1.1 200 OK") == 2_001


def test_leave_to_go_on_is_given_to_who_waits_for_it(running: Service) -> None:
    headers = b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n" % len(BODY)
    with socket.create_connection(("127.0.0.1", running.port), TIMEOUT_S) as connection:
        connection.sendall(post(headers))
        assert connection.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert connection.recv(1_000).startswith(b"HTTP/1.1 200 ")


def test_what_is_no_request_waits_for_the_answers_before_it(running: Service) -> None:
    answer = exchange(running.port, get() * 3 + get(b""))
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"200", b"200", b"400"]
    bad_body = CHUNKED + b"zz\r\n"
    answer = exchange(running.port, get() * 3 + bad_body)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"200", b"200", b"400"]


@pytest.mark.parametrize(
    ("sent", "part", "status"),
    [
        (CHUNKED + b"1;", b"a" * 10_000, b" 413 "),
        (CHUNKED, b"1;" + b"a" * 10_000 + b"\r\nx\r\n", b" 413 "),
        (CHUNKED + b"0\r\nA: ", b"a" * 10_000, b" 413 "),
        (CHUNKED + b"0\r\n", b"A: " + b"a" * 10_000 + b"\r\n", b" 431 "),
        (b"GET / HTTP/1.1\r\nA: ", b"a" * 10_000, b" 431 "),
        (b"GET /", b"a" * 10_000, b" 414 "),
    ],
)
def test_what_has_no_end_is_refused_before_it_is_a_megabyte(
    running: Service, sent: bytes, part: bytes, status: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", running.port), TIMEOUT_S) as connection:
        connection.sendall(sent)
        for _ in range(100):
            connection.sendall(part)
        assert status in connection.recv(1_000)


def test_a_body_of_small_chunks_is_no_framing_without_end(running: Service) -> None:
    chunks = b"".join(b"1\r\n \r\n" for _ in range(200_000))
    body = b"c\r\n" + BODY + b"\r\n" + chunks + b"0\r\n\r\n"
    answer = exchange(running.port, CHUNKED.replace(HOST, HOST + b"Connection: close\r\n"), body)
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_large_body_before_half_a_head_is_no_part_of_it(running: Service) -> None:
    body = b'{"text":"x"' + b" " * 200_000 + b"}"
    whole = post(b"Content-Length: %d\r\n" % len(body), body)
    answer = exchange(running.port, whole + LAST[:20], LAST[20:])
    assert answer.count(b"HTTP/1.1 200 ") == 2


def test_head_is_answered_as_get_without_the_body(running: Service) -> None:
    document = json.loads(
        split(exchange(running.port, LAST.replace(b"health", b"openapi.json")))[2]
    )
    asked = [path for path, methods in document["paths"].items() if "get" in methods]
    assert len(asked) > 8
    files = ["/static/docs/swagger-ui.css", "/static/docs/swagger-ui-bundle.js"]
    for path in [*asked, "/", "/predict", "/docs", "/openapi.json", *files, "/nowhere"]:
        target = re.sub(r"\{\w+\}", "1", path).encode()
        with_body = split(exchange(running.port, LAST.replace(b"/health", target)))
        head = exchange(running.port, LAST.replace(b"/health", target).replace(b"GET", b"HEAD"))
        status, headers, body = split(head)
        assert (status, body) == (with_body[0], b""), path
        assert path not in files or status == 200
        changes = {"content-length"} if path == "/metrics" else set()
        for ignored in OF_ONE_ANSWER | {"transfer-encoding"} | changes:
            headers.pop(ignored, None)
            with_body[1].pop(ignored, None)
        assert headers == with_body[1], path


def test_after_head_the_connection_goes_on(running: Service) -> None:
    answer = exchange(running.port, get().replace(b"GET", b"HEAD") * 3 + LAST)
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert answer.count(b'{"status":"ok"}') == 1
    refused = exchange(running.port, get(b"").replace(b"GET", b"HEAD"))
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert refused.endswith(b"\r\n\r\n")
