"""How a webhook is posted: to checked addresses only, with a timeout; 2xx is success."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from ipaddress import ip_address

import httpcore2
import httpx2

from app.features.jobs.webhooks.addresses import Address, AllowedHosts, is_public

Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]

# A receiver should answer at once and work later; a slower one gets the webhook again.
TOTAL_S = 10.0
CONNECT_S = 5.0
READ_S = 10.0
# Only the status matters; of the body so much is read and dropped that most receivers can finish.
MAX_ANSWER_BYTES = 65_536
SCHEMES = ("http", "https")
LAST_PORT = 65_535


class Outcome(StrEnum):
    """How an attempt ended."""

    DELIVERED = "delivered"
    REJECTED = "rejected"  # another status than 2xx
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"  # not sent: the URL or its address isn't allowed


@dataclass(frozen=True, slots=True)
class Answer:
    """How an attempt ended; `summary` is the receiver's status, or why there is none."""

    outcome: Outcome
    summary: str


class TargetRefusedError(Exception):
    """A webhook may not go to this URL; the message says why."""


class UnknownNameError(httpcore2.ConnectError):
    """The host has no address."""


def system_resolver(threads: Executor) -> Resolver:
    """Return a resolver that asks the operating system, which blocks a thread meanwhile."""

    async def resolve(host: str, port: int) -> Sequence[Address]:
        infos = await asyncio.get_running_loop().run_in_executor(
            threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [ip_address(address[0]) for *_, address in infos]

    return resolve


# What users are told of a failed connection, by its cause; the first that fits.
REASONS = {
    UnknownNameError: "the name is unknown",
    ssl.SSLCertVerificationError: "its certificate isn't valid",
    ssl.SSLError: "TLS failed",
    ConnectionRefusedError: "connection refused",
}


class CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to a checked address, not to a name that could resolve to another one later.

    Args:
        resolve: returns the addresses of a host.
        allowed: hosts that may have any address.
        dial: makes the connections; it gets addresses, never names.

    """

    def __init__(
        self,
        resolve: Resolver,
        *,
        allowed: AllowedHosts,
        dial: httpcore2.AsyncNetworkBackend,
    ) -> None:
        self._resolve = resolve
        self._allowed = allowed
        self._dial = dial

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # the signature is httpcore2's
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of a host that answers, if all of them are public.

        Raises:
            TargetRefusedError: one of them isn't.
            UnknownNameError: it has none.
            ConnectError: none answers.

        """
        failure: Exception = UnknownNameError()
        for address in await self._checked(host, port):
            try:
                return await self._dial.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as failed:
                failure = failed
        raise failure

    async def _checked(self, host: str, port: int) -> Sequence[Address]:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, ValueError) as unknown:  # ValueError: not even a name
            raise UnknownNameError from unknown
        if not self._allowed.has(host, port) and not all(map(is_public, addresses)):
            raise TargetRefusedError("not a public address")
        return addresses


@cache
def _system_certificates() -> ssl.SSLContext:
    """Read them once for each process, as that takes 20 ms."""
    return httpcore2.default_ssl_context()


class WebhookClient:
    """Posts webhooks. Proxies of the environment aren't used, redirects not followed.

    Args:
        network: makes the connections.
        trusted: certificates; default: the system's.
        timeout_s: of an attempt, from looking up the name to the end of the answer.

    """

    def __init__(
        self,
        network: CheckedNetwork,
        *,
        trusted: ssl.SSLContext | None = None,
        timeout_s: float = TOTAL_S,
    ) -> None:
        self._network = network
        self._trusted = trusted or _system_certificates()
        self._timeout_s = timeout_s

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post JSON once; failures are answers too."""
        try:
            target, host = read_url(url)
            sent = {"Host": host, "Content-Type": "application/json", "User-Agent": "ml-api"}
            async with asyncio.timeout(self._timeout_s):
                status = await self._post(target, body, {**sent, **headers})
        except TargetRefusedError as refused:
            return Answer(Outcome.REFUSED, f"refused: {refused}")
        except (TimeoutError, httpcore2.TimeoutException):
            return Answer(Outcome.TIMEOUT, "timeout")
        except httpcore2.NetworkError as failure:
            return Answer(Outcome.UNREACHABLE, f"unreachable: {_describe(failure)}")
        except httpcore2.ProtocolError:
            return Answer(Outcome.UNREACHABLE, "unreachable: it doesn't speak HTTP")
        is_good = 200 <= status < 300  # noqa: PLR2004  # what HTTP calls successful
        return Answer(Outcome.DELIVERED if is_good else Outcome.REJECTED, str(status))

    async def _post(self, url: httpcore2.URL, body: bytes, headers: Mapping[str, str]) -> int:
        """Return the status, after reading the body up to its limit."""
        # A pool for each delivery, so that each connection's address has just been checked.
        pool = httpcore2.AsyncConnectionPool(
            ssl_context=self._trusted, network_backend=self._network
        )
        timeouts = {"connect": CONNECT_S, "read": READ_S, "write": READ_S, "pool": CONNECT_S}
        async with (
            pool,
            pool.stream(
                "POST",
                url,
                headers=list(headers.items()),
                content=body,
                extensions={"timeout": timeouts},
            ) as response,
        ):
            read = 0
            async for chunk in response.aiter_stream():
                read += len(chunk)
                if read >= MAX_ANSWER_BYTES:
                    break
            return response.status


def read_url(url: str) -> tuple[httpcore2.URL, str]:
    """Return where a webhook goes, and its `Host` header.

    Raises:
        TargetRefusedError: it isn't a plain http or https URL.

    """
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError, TypeError):
        raise TargetRefusedError("not a URL") from None
    if parsed.scheme not in SCHEMES:
        raise TargetRefusedError("neither http nor https")
    if not parsed.raw_host:
        raise TargetRefusedError("no host")
    if parsed.userinfo:
        raise TargetRefusedError("a user name or password in the URL")
    if parsed.port is not None and not 0 < parsed.port <= LAST_PORT:
        raise TargetRefusedError("no such port")
    target = httpcore2.URL(
        scheme=parsed.raw_scheme,
        host=parsed.raw_host,
        port=parsed.port,
        target=parsed.raw_path,
    )
    return target, parsed.netloc.decode("ascii")


def _describe(failure: httpcore2.NetworkError) -> str:
    """Return what a user may know of a failed connection: no addresses."""
    cause: BaseException | None = failure
    while cause is not None:
        for kind, reason in REASONS.items():
            if isinstance(cause, kind):
                return reason
        cause = cause.__cause__ or cause.__context__
    return "connection failed"
