"""Which address a request comes from, behind proxies that may be believed."""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from app.errors import SettingsError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# One customer of a provider has as many addresses as fit into this; a limit for each is none.
IPV6_CUSTOMER_BITS = 64
# For servers that don't know their peer, such as those on a unix socket: one caller for all.
UNKNOWN = "unknown"
FORWARDED_FOR = b"x-forwarded-for"


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read `TRUSTED_PROXIES`: addresses and networks, with commas or blanks between them.

    Raises:
        SettingsError: one of them is neither, or stands for everyone.

    """
    networks = []
    for part in text.replace(",", " ").split():
        try:
            network = ip_network(part)
        except ValueError as bad:
            raise SettingsError(f"TRUSTED_PROXIES: {bad}") from None
        if network.prefixlen == 0:
            raise SettingsError(
                f"TRUSTED_PROXIES: {part} is everyone, so every caller could choose its address"
            )
        networks.append(network)
    return tuple(networks)


def caller_address(scope: Mapping[str, Any], trusted: Sequence[Network]) -> str:
    """Return the address of the caller, normalised; "unknown" without a peer.

    `X-Forwarded-For` is read from the right, where our own proxy wrote, for as long as the address
    to the right of it is a trusted proxy's. What stands further left was written by whoever that
    untrusted address is, and may say anything.

    Args:
        scope: of an ASGI connection.
        trusted: networks of proxies whose word is taken.

    """
    peer = scope.get("client")
    caller = _parse(peer[0]) if peer else None
    if caller is None:
        return UNKNOWN
    for hop in _hops(scope["headers"]) if trusted else ():
        if not _is_in(caller, trusted):
            break
        said = _parse(hop)
        if said is None:
            break  # a proxy that forwards nonsense is the last that we know of
        caller = said
    return str(caller)


def limited_address(address: str) -> str:
    """Return what a limit by address counts: an IPv4 address, or the network of an IPv6 one."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, IPV6_CUSTOMER_BITS), strict=False))
    return address


def _hops(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[str]:
    """Return what all `X-Forwarded-For` headers say, the last first: each proxy may add one."""
    said = b",".join(value for name, value in headers if name == FORWARDED_FOR)
    return (hop.decode("latin-1") for hop in reversed(said.split(b",")) if hop.strip())


def _parse(text: str) -> Address | None:
    """Read an address, also with a port or in brackets, as some proxies write it."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        # An interface's name (`%eth0`) says nothing about the caller, and any text may follow it.
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A socket for both versions shows IPv4 callers so; they are in the networks of IPv4.
    return getattr(address, "ipv4_mapped", None) or address


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
