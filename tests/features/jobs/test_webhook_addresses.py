"""Where a webhook may go: public addresses, and nothing that only looks like one."""

from ipaddress import ip_address

import pytest

from app.errors import SettingsError
from app.features.jobs.webhooks.addresses import AllowedHosts, is_public
from app.main import load_settings

REFUSED = {
    "this host": ["0.0.0.0", "0.1.2.3", "::"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"],
    "unique local": ["fc00::1", "fd12:3456::1"],
    "carrier-grade NAT": ["100.64.0.1", "100.127.255.255"],
    "link-local": ["169.254.0.1", "fe80::1", "fe80::1%eth0", "2600::1%eth0"],
    "metadata": [
        *("169.254.169.254", "169.254.170.2", "fd00:ec2::254"),
        *("100.100.100.200", "192.0.0.192", "168.63.129.16"),
    ],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "broadcast and reserved": ["255.255.255.255", "240.0.0.1", "4000::1", "e000::1"],
    "documents and benchmarks": [
        *("192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1"),
        *("2001:db8::1", "3fff::1"),
    ],
    "IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"],
    "IPv4-compatible": ["::127.0.0.1", "::8.8.8.8"],
    "6to4": ["2002:7f00:1::", "2002:a9fe:a9fe::1", "192.88.99.1"],
    "Teredo": ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::10.0.0.1", "64:ff9b:1::8.8.8.8"],
    "site-local, discard": ["fec0::1", "100::1"],
}
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1"),
    *("11.0.0.1", "126.255.255.255", "128.0.0.1", "169.253.0.1", "192.167.1.1", "223.255.255.255"),
    *("2606:4700:4700::1111", "2001:4860:4860::8888", "2a00:1450:4001::1"),
    *("::ffff:8.8.8.8", "64:ff9b::8.8.8.8"),
]


@pytest.mark.parametrize(
    "address", [pytest.param(a, id=f"{kind}: {a}") for kind, all_ in REFUSED.items() for a in all_]
)
def test_an_address_that_is_not_the_internet_s_is_refused(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    ("named", "host", "port", "is_allowed"),
    [
        ("hooks.internal", "hooks.internal", 443, True),
        ("hooks.internal", "HOOKS.internal.", 8080, True),
        ("Hooks.Internal", "hooks.internal", 80, True),
        ("hooks.internal", "evil.hooks.internal", 443, False),
        ("hooks.internal", "hooks.internal.evil.com", 443, False),
        ("hooks.internal:8080", "hooks.internal", 8080, True),
        ("hooks.internal:8080", "hooks.internal", 80, False),
        ("a.b, 10.0.0.5  c.d", "10.0.0.5", 80, True),
        ("10.0.0.5", "167772165", 80, False),
        ("[::1]:9000", "::1", 9000, True),
        ("[::1]:9000", "::1", 9001, False),
        ("::1", "0:0:0:0:0:0:0:1", 80, True),
        ("", "", 80, False),
        ("", "localhost", 80, False),
    ],
)
def test_a_host_is_allowed_by_its_exact_name(
    named: str, host: str, port: int, *, is_allowed: bool
) -> None:
    assert AllowedHosts.parse(named).has(host, port) is is_allowed


@pytest.mark.parametrize("hosts", ["https://hooks.internal/", "*.internal", "me@hooks.internal"])
def test_what_can_be_no_host_stops_the_start(hosts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_ALLOW_HOSTS", hosts)
    with pytest.raises(SettingsError, match=r"WEBHOOK_ALLOW_HOSTS: .*hooks\.internal, 10"):
        load_settings()
