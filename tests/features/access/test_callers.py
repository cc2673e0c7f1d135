"""Whose address a limit counts: what proxies say, and what callers make up."""

from typing import Any

import pytest

from app.errors import SettingsError
from app.features.access.addresses import caller_address, limited_address, parse_networks

PROXIES = parse_networks("10.0.0.0/8, 127.0.0.1 2001:db8:ffff::/48")


def scope(peer: str | None, *forwarded: str) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    return {
        "client": (peer, 40_000) if peer is not None else None,
        "headers": [(b"host", b"test"), *headers],
    }


@pytest.mark.parametrize("said", ["198.51.100.9", "10.0.0.1", "::1", "", "x"])
def test_a_peer_that_is_no_trusted_proxy_is_the_caller_whatever_it_says(said: str) -> None:
    assert caller_address(scope("203.0.113.5", said), PROXIES) == "203.0.113.5"


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert caller_address(scope("127.0.0.1", "203.0.113.5"), ()) == "127.0.0.1"


def test_a_trusted_proxy_is_believed() -> None:
    assert caller_address(scope("10.1.2.3", "203.0.113.5"), PROXIES) == "203.0.113.5"


@pytest.mark.parametrize(
    "forwarded",
    [
        ["198.51.100.9, 203.0.113.5"],
        ["198.51.100.9", "203.0.113.5"],
        ["10.0.0.7, 198.51.100.9, 203.0.113.5, 10.0.0.2"],
        ["10.0.0.7, 203.0.113.5", "10.0.0.2, 10.0.0.3"],
        ["  198.51.100.9,,203.0.113.5 ,\t10.0.0.2,  "],
        ["<script>, 203.0.113.5, 10.0.0.2"],
    ],
)
def test_the_rightmost_address_that_is_no_proxy_is_the_caller(forwarded: list[str]) -> None:
    assert caller_address(scope("10.1.2.3", *forwarded), PROXIES) == "203.0.113.5"


def test_where_all_are_proxies_the_first_of_them_is_the_caller() -> None:
    assert caller_address(scope("10.1.2.3", "10.0.0.1, 10.0.0.2"), PROXIES) == "10.0.0.1"


@pytest.mark.parametrize("said", ["unknown", "_hidden", "203.0.113", "a.b.c.d", "\xff\xfe", "1e3"])
def test_a_proxy_that_forwards_no_address_is_itself_the_caller(said: str) -> None:
    forwarded = f"203.0.113.5, {said}, 10.0.0.2"
    assert caller_address(scope("10.1.2.3", forwarded), PROXIES) == "10.0.0.2"


@pytest.mark.parametrize("forwarded", [[], [""], [" , "]])
def test_a_proxy_that_says_nothing_is_itself_the_caller(forwarded: list[str]) -> None:
    assert caller_address(scope("10.1.2.3", *forwarded), PROXIES) == "10.1.2.3"


@pytest.mark.parametrize(
    ("said", "caller"),
    [
        ("203.0.113.5:8080", "203.0.113.5"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("2001:DB8:0:0::7", "2001:db8::7"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_every_way_of_writing_an_address_is_one_caller(said: str, caller: str) -> None:
    assert caller_address(scope("127.0.0.1", said), PROXIES) == caller


def test_proxies_may_speak_ipv6_and_ipv4_in_ipv6() -> None:
    assert caller_address(scope("2001:db8:ffff::1", "203.0.113.5"), PROXIES) == "203.0.113.5"
    assert caller_address(scope("::ffff:10.0.0.1", "203.0.113.5"), PROXIES) == "203.0.113.5"
    assert caller_address(scope("2001:db8:fffe::1", "203.0.113.5"), PROXIES) == "2001:db8:fffe::1"


@pytest.mark.parametrize("peer", [None, "", "testclient"])
def test_a_server_that_does_not_know_its_peer_has_one_unknown_caller(peer: str | None) -> None:
    assert caller_address(scope(peer, "203.0.113.5"), PROXIES) == "unknown"


def test_a_limit_counts_a_customer_of_ipv6_as_one() -> None:
    ours, theirs = "2001:db8:1:2:3:4:5:6", "2001:db8:1:3::1"
    assert limited_address(ours) == limited_address("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert limited_address(theirs) != limited_address(ours)
    assert limited_address("203.0.113.5") == "203.0.113.5"
    assert limited_address("unknown") == "unknown"


@pytest.mark.parametrize("text", ["", " ", ","])
def test_nothing_is_no_proxy(text: str) -> None:
    assert parse_networks(text) == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10.0.0.1/8", "10.0.0.1/8 has host bits set"),
        ("proxy.internal", "'proxy.internal' does not appear"),
        ("10.0.0.0/8;127.0.0.1", "'10.0.0.0/8;127.0.0.1'"),
        ("*", r"'\*' does not appear"),
        ("0.0.0.0/0", "everyone"),
        ("127.0.0.1, ::/0", "everyone"),
    ],
)
def test_a_bad_network_is_named(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=f"TRUSTED_PROXIES: .*{says}"):
        parse_networks(text)
