"""Posting a webhook: which hosts it reaches, and what each failure is called."""

import asyncio
import functools
import shutil
import ssl
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import pytest
from receivers import Behave, Dial, client, receiving, resolver

from app.features.jobs.webhooks.addresses import Address
from app.features.jobs.webhooks.client import MAX_ANSWER_BYTES, Answer, Outcome, system_resolver

BODY = b'{"id":"job_1"}'
OPENSSL = shutil.which("openssl")
NOT_PUBLIC = Answer(Outcome.REFUSED, "refused: not a public address")


async def test_a_webhook_is_posted_as_json_with_the_headers_given() -> None:
    async with receiving() as receiver:
        answer = await client().post(receiver.url + "?a=b", BODY, {"X-Webhook-Id": "job_1.1"})
    assert answer == Answer(Outcome.DELIVERED, "204")
    got = receiver.got.get_nowait()
    assert (got.path, got.body) == ("/hook?a=b", BODY)
    assert got.headers == {
        "Host": f"127.0.0.1:{receiver.port}",
        "Content-Type": "application/json",
        "User-Agent": "ml-api",
        "X-Webhook-Id": "job_1.1",
        "Content-Length": str(len(BODY)),
    }


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001"),
        *("0.0.0.0", "0", "localhost", "LOCALHOST", "[::1]", "[0:0:0:0:0:0:0:1]", "[::]"),
        *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]"),
        *("169.254.169.254", "[fd00:ec2::254]", "10.0.0.1", "[2002:7f00:1::]"),
    ],
)
async def test_a_spelling_of_an_address_that_is_not_public_is_refused(host: str) -> None:
    dial = Dial()
    with ThreadPoolExecutor(1) as threads:
        async with receiving() as receiver:
            sender = client(system_resolver(threads), dial=dial)
            answer = await sender.post(f"http://{host}:{receiver.port}/", BODY, {})
    # Some spellings aren't even a URL's.
    assert answer.outcome is Outcome.REFUSED
    assert (receiver.connections, dial.dialled) == (0, [])


@pytest.mark.parametrize(
    "addresses",
    [
        *(["127.0.0.1"], ["10.1.2.3"], ["169.254.169.254"], ["fd00:ec2::254"], ["fe80::1"]),
        *(["::ffff:192.168.0.1"], ["64:ff9b::a00:1"], ["2002:a00:1::"], ["2001:0:1::"]),
        # One public address doesn't make the other harmless: the next look-up may turn them round.
        *(["8.8.8.8", "127.0.0.1"], ["::1", "2606:4700::1"]),
    ],
)
async def test_a_name_with_an_address_that_is_not_public_is_refused(
    addresses: list[str],
) -> None:
    dial = Dial()
    sender = client(resolver(hooks_example=addresses), dial=dial)
    for scheme in ("http", "https"):
        assert await sender.post(f"{scheme}://hooks.example/", BODY, {}) == NOT_PUBLIC
    assert dial.dialled == []


async def test_dns_that_changes_after_the_check_changes_nothing() -> None:
    answers = [["93.184.215.14"], ["127.0.0.1"]]
    hosts: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[Address]:
        hosts.append(host)
        return [ip_address(address) for address in answers.pop(0)]

    dial = Dial()
    async with receiving() as receiver:
        sender = client(resolve, dial=dial)
        url = f"http://rebind.example:{receiver.port}/"
        assert (await sender.post(url, BODY, {})).outcome is Outcome.UNREACHABLE
        # One lookup, and the address that was dialled is the one that was checked.
        assert (hosts, dial.dialled) == (["rebind.example"], ["93.184.215.14"])
        # The next attempt looks it up anew, and checks that.
        assert await sender.post(url, BODY, {}) == NOT_PUBLIC
    assert (receiver.connections, dial.dialled) == (0, ["93.184.215.14"])


async def test_every_address_is_tried_until_one_answers() -> None:
    dial = Dial()
    sender = client(resolver(hooks_example=["2606:4700::1", "8.8.8.8"]), dial=dial)
    answer = await sender.post("http://hooks.example/", BODY, {})
    assert answer == Answer(Outcome.UNREACHABLE, "unreachable: connection failed")
    assert dial.dialled == ["2606:4700::1", "8.8.8.8"]


async def test_the_host_header_stays_the_name() -> None:
    async with receiving() as receiver:
        dial = Dial(receiver.port)
        sender = client(resolver(hooks_example=["8.8.8.8"]), dial=dial)
        answer = await sender.post("http://hooks.example:81/x", BODY, {})
    assert answer.outcome is Outcome.DELIVERED
    assert dial.dialled == ["8.8.8.8"]
    assert receiver.got.get_nowait().headers["Host"] == "hooks.example:81"


@pytest.mark.skipif(OPENSSL is None, reason="there is no openssl to make a certificate with")
async def test_tls_is_checked_against_the_name(tmp_path: Path) -> None:
    theirs, ours = _certificate(tmp_path, "hooks.example")
    async with receiving(tls=theirs) as receiver:
        dial = Dial(receiver.port)
        names = resolver(hooks_example=["8.8.8.8"], other_example=["8.8.8.8"])
        believing = client(names, dial=dial, trusted=ours)
        answer = await believing.post("https://hooks.example/", BODY, {})
        assert answer == Answer(Outcome.DELIVERED, "204")
        invalid = Answer(Outcome.UNREACHABLE, "unreachable: its certificate isn't valid")
        assert await believing.post("https://other.example/", BODY, {}) == invalid
        assert await client(names, dial=dial).post("https://hooks.example/", BODY, {}) == invalid
        assert receiver.got.qsize() == 1


async def test_a_redirect_is_a_rejection_and_is_not_followed() -> None:
    async with receiving() as inner:

        async def redirect(writer: asyncio.StreamWriter) -> None:
            head = f"HTTP/1.1 307 X\r\nLocation: {inner.url}\r\nContent-Length: 0\r\n\r\n"
            writer.write(head.encode())

        async with receiving(redirect) as receiver:
            assert await client().post(receiver.url, BODY, {}) == Answer(Outcome.REJECTED, "307")
    assert (receiver.connections, inner.connections) == (1, 0)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as proxy, receiving() as receiver:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert (await client().post(receiver.url, BODY, {})).outcome is Outcome.DELIVERED
    assert proxy.connections == 0


@pytest.mark.parametrize(
    ("allow", "host", "is_reached"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("hooks.internal", "hooks.internal", True),
        ("hooks.internal:{port}", "hooks.internal", True),
        ("hooks.internal:1", "hooks.internal", False),
        # The name is what is allowed, not where it leads.
        ("127.0.0.1", "hooks.internal", False),
    ],
)
async def test_an_allowed_host_is_reached_on_any_address(
    allow: str, host: str, *, is_reached: bool
) -> None:
    names = resolver(hooks_internal=["127.0.0.1"], **{"127_0_0_1": ["127.0.0.1"]})
    async with receiving() as receiver:
        sender = client(names, allow=allow.format(port=receiver.port))
        answer = await sender.post(f"http://{host}:{receiver.port}/", BODY, {})
    assert answer == (Answer(Outcome.DELIVERED, "204") if is_reached else NOT_PUBLIC)
    assert receiver.connections == int(is_reached)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://127.0.0.1/", "neither http nor https"),
        ("file:///etc/passwd", "neither http nor https"),
        ("127.0.0.1", "neither http nor https"),
        ("http:///path", "no host"),
        ("http://user:secret@127.0.0.1/", "a user name or password in the URL"),
        ("http://127.0.0.1:0/", "no such port"),
        ("http://127.0.0.1:65536/", "no such port"),
        ("http://127.0.0.1:x/", "not a URL"),
        ("http://a\nb/", "not a URL"),
    ],
)
async def test_what_is_no_plain_url_is_refused(url: str, reason: str) -> None:
    assert await client().post(url, BODY, {}) == Answer(Outcome.REFUSED, f"refused: {reason}")


@pytest.mark.parametrize("host", ["unknown.example", "a..b", "a" * 80, "*"])
async def test_an_unknown_name_is_unreachable(host: str) -> None:
    answer = await client(resolver()).post(f"http://{host}/", BODY, {})
    assert answer == Answer(Outcome.UNREACHABLE, "unreachable: the name is unknown")


@pytest.mark.parametrize("host", ["a..b", "a" * 80])
async def test_what_can_t_be_a_name_is_unreachable(host: str) -> None:
    with ThreadPoolExecutor(1) as threads:
        answer = await client(system_resolver(threads)).post(f"http://{host}/", BODY, {})
    assert answer == Answer(Outcome.UNREACHABLE, "unreachable: the name is unknown")


async def test_a_closed_port_is_unreachable() -> None:
    async with receiving() as receiver:
        pass
    answer = await client().post(receiver.url, BODY, {})
    assert answer == Answer(Outcome.UNREACHABLE, "unreachable: connection refused")


async def _say_nothing(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _drip(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 200 X\r\nX-A: " if not writer.is_closing() else b"")
        await writer.drain()
        await asyncio.sleep(0.01)


async def _send(writer: asyncio.StreamWriter, *, text: bytes) -> None:
    writer.write(text)
    await writer.drain()


async def _never_end(writer: asyncio.StreamWriter, *, sent: list[int]) -> None:
    writer.write(b"HTTP/1.1 200 X\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x" * 4096)
        sent.append(4096)
        await writer.drain()


@pytest.mark.parametrize("behave", [_say_nothing, _drip])
async def test_silence_and_a_trickle_are_a_timeout(behave: Behave) -> None:
    started = time.monotonic()
    async with receiving(behave) as receiver:
        answer = await client(timeout_s=0.2).post(receiver.url, BODY, {})
    assert answer == Answer(Outcome.TIMEOUT, "timeout")
    assert time.monotonic() - started < 5  # both would go on for ever


async def test_a_resolver_that_hangs_is_a_timeout() -> None:
    async def resolve(host: str, port: int) -> Sequence[Address]:
        await asyncio.Event().wait()
        return []

    answer = await client(resolve, timeout_s=0.05).post("http://slow.example/", BODY, {})
    assert answer == Answer(Outcome.TIMEOUT, "timeout")


@pytest.mark.parametrize(
    "text", [b"SSH-2.0-OpenSSH\r\n", b"", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 X\r\n" + b"a" * 9]
)
async def test_what_is_not_http_is_unreachable(text: bytes) -> None:
    async with receiving(functools.partial(_send, text=text)) as receiver:
        answer = await client().post(receiver.url, BODY, {})
    assert answer == Answer(Outcome.UNREACHABLE, "unreachable: it doesn't speak HTTP")


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    sent: list[int] = []
    async with receiving(functools.partial(_never_end, sent=sent)) as receiver:
        answer = await client().post(receiver.url, BODY, {})
    assert answer == Answer(Outcome.DELIVERED, "200")
    # What the sockets of both sides hold comes on top.
    assert sum(sent) < MAX_ANSWER_BYTES + 8 * 1024 * 1024


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((200, Outcome.DELIVERED), (202, Outcome.DELIVERED), (299, Outcome.DELIVERED)),
        *((301, Outcome.REJECTED), (404, Outcome.REJECTED), (500, Outcome.REJECTED)),
    ],
)
async def test_only_2xx_is_a_delivery(status: int, outcome: Outcome) -> None:
    async with receiving(status) as receiver:
        assert await client().post(receiver.url, BODY, {}) == Answer(outcome, str(status))


def _certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server that is this name, and a client that believes it."""
    assert OPENSSL is not None
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *(OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", f"/CN={name}", "-keyout", key, "-out", certificate),
            *("-addext", f"subjectAltName=DNS:{name}"),
        ],
        check=True,
        capture_output=True,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=certificate)
