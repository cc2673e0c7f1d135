"""Which addresses a webhook may be sent to."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

# Python's own `is_global` differs between its releases, so the networks are written out. From
# https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry.
PRIVATE_V4 = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this host, on this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's platform, though it looks public
        "169.254.0.0/16",  # link-local; metadata of AWS, Azure and Google
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.0.2.0/24",  # for documents
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",  # for benchmarks
        "198.51.100.0/24",  # for documents
        "203.0.113.0/24",  # for documents
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved; broadcast
    )
)
# All public addresses are in this one: ::1, IPv4-compatible ones, fc00::/7 (private; metadata of
# AWS), fe80::/10 (link-local) and ff00::/8 (multicast) aren't.
PUBLIC_V6 = ip_network("2000::/3")
PRIVATE_V6 = tuple(
    ip_network(network)
    for network in (
        "2001::/23",  # protocol assignments; Teredo, which has an IPv4 address inside
        "2001:db8::/32",  # for documents
        "2002::/16",  # 6to4, which has an IPv4 address inside
        "3fff::/20",  # for documents
    )
)
# Networks without IPv4 reach hosts that have only IPv4 through this prefix (RFC 6052).
NAT64 = ip_network("64:ff9b::/96")
V4_BITS = 0xFFFF_FFFF


def is_public(address: Address) -> bool:
    """Return whether an address is public; IPv4 addresses inside IPv6 ones are checked too."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in PRIVATE_V4)
    if address.scope_id is not None:
        return False
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in NAT64:
        return is_public(IPv4Address(int(address) & V4_BITS))
    return address in PUBLIC_V6 and not any(address in network for network in PRIVATE_V6)


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """Hosts that may be reached on any address, each with a port or without."""

    names: frozenset[str]

    @classmethod
    def parse(cls, text: str) -> "AllowedHosts":
        """Read `WEBHOOK_ALLOW_HOSTS`, such as `hooks.internal, 10.0.0.5:8080, [::1]:9000`."""
        return cls(frozenset(_normalise(part) for part in text.replace(",", " ").split()))

    def has(self, host: str, port: int) -> bool:
        """Return whether a host, as the URL spells it, is allowed, with this port or any."""
        name = _normalise(host)
        return name in self.names or f"{name}:{port}" in self.names


def _normalise(name: str) -> str:
    """Return a name in the spelling that is compared; IPv6 addresses get brackets."""
    plain = name.lower().rstrip(".")
    try:
        address = ip_address(plain.strip("[]"))
    except ValueError:
        return plain
    return f"[{address}]" if isinstance(address, IPv6Address) else str(address)
