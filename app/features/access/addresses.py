"""The address that a request comes from, also behind trusted proxies."""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from app.errors import SettingsError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# A provider gives each customer a /64: a limit for each address in it would limit nobody.
IPV6_CUSTOMER_BITS = 64
# Servers on a unix socket, for example, don't know their peer: all its callers count as one.
UNKNOWN = "unknown"
FORWARDED_FOR = b"x-forwarded-for"


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read `TRUSTED_PROXIES`: addresses and networks, with commas or blanks between them.

    Raises:
        SettingsError: one of them is neither, or contains all addresses.

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

    `X-Forwarded-For` is read from right to left, because each proxy appends to it. Reading stops
    at the first address that isn't a trusted proxy's: that client may have written anything into
    the part further left.

    Args:
        scope: of an ASGI connection.
        trusted: networks of trusted proxies.

    """
    peer = scope.get("client")
    caller = _parse(peer[0]) if peer else None
    if caller is None:
        return UNKNOWN
    for hop in _hops(scope["headers"]) if trusted else ():
        if not _is_in(caller, trusted):
            break
        address = _parse(hop)
        if address is None:
            break  # not an address: the proxy that sent it is the last one known
        caller = address
    return str(caller)


def is_proxy(scope: Mapping[str, Any], trusted: Sequence[Network]) -> bool:
    """Say whether the peer of a connection is a trusted proxy."""
    peer = scope.get("client")
    address = _parse(peer[0]) if peer else None
    return address is not None and _is_in(address, trusted)


def limited_address(address: str) -> str:
    """Return what a limit by address counts: an IPv4 address, or the network of an IPv6 one."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, IPV6_CUSTOMER_BITS), strict=False))
    return address


def _hops(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[str]:
    """Return the entries of all `X-Forwarded-For` headers, the last first."""
    entries = b",".join(value for name, value in headers if name == FORWARDED_FOR)
    return (hop.decode("latin-1") for hop in reversed(entries.split(b",")) if hop.strip())


def _parse(text: str) -> Address | None:
    """Read an address, also with a port or in brackets, as some proxies write it."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        # Without the interface's name (`%eth0`), which may be any text.
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A dual-stack socket maps IPv4 callers into IPv6; trusted networks list them as IPv4.
    return getattr(address, "ipv4_mapped", None) or address


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
