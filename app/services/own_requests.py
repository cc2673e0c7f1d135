"""Requests that the service makes to its own routes: answered as a client's would be."""

from dataclasses import dataclass
from typing import Protocol

from app.core.callers import Caller
from app.core.client_requests import ClientRequests


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRequest:
    """A POST with a JSON body.

    Args:
        path: of a route.
        body: JSON.
        caller: in whose name it is; that they may call the route was checked.
        request_id: of the request, in logs and in the prediction log.

    """

    path: str
    body: bytes
    caller: Caller
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnAnswer:
    """The answer: its status, its body, and the seconds to wait that it names."""

    status: int
    body: bytes
    retry_after_s: int | None = None


class OwnRequests(Protocol):
    """Answers the service's own requests.

    Attributes:
        clients: whose requests are the ones to give way to.

    """

    clients: ClientRequests

    async def answer(self, request: OwnRequest) -> OwnAnswer:
        """Answer a request, an error too; when the call is cancelled, as if its client had left."""
        ...
