"""A client of a running service for the command line: what goes wrong becomes one sentence."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

import httpx2

CONNECT_S = 5.0
# Longer than the service's own deadlines.
SILENCE_S = 150.0

# Exit statuses of commands, for scripts; docs/cli.md has them too.
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NO_SERVICE = 3
EXIT_KEY = 4
EXIT_NOT_FOUND = 5
EXIT_INPUT = 6
EXIT_BUSY = 7
EXIT_JOB_FAILED = 8

GOOD = range(200, 300)
ELSEWHERE = range(300, 400)
BAD_REQUEST = range(400, 500)
UNAUTHORIZED = 401
# What load balancers say themselves, of a service that is away or late.
IN_BETWEEN = (502, 503, 504)
EXIT_STATUSES = {
    401: EXIT_KEY,
    403: EXIT_KEY,
    404: EXIT_NOT_FOUND,
    429: EXIT_BUSY,
    503: EXIT_BUSY,
    504: EXIT_BUSY,
}


class ClientError(Exception):
    """The service didn't do what was asked; the message is for people, the status for scripts."""

    def __init__(self, said: str, *, exit_status: int) -> None:
        super().__init__(said)
        self.exit_status = exit_status


class NoServiceError(ClientError):
    """Nobody answers, or not to the end, or somebody else."""

    def __init__(self, said: str) -> None:
        super().__init__(said, exit_status=EXIT_NO_SERVICE)


def key_headers(key: str | None) -> dict[str, str]:
    """Return the headers that a key is sent in.

    Raises:
        ClientError: it can't be a key.

    """
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise ClientError("APP_KEY: has characters that no key has", exit_status=EXIT_KEY)
    return {"Authorization": f"Bearer {key}"}


class Client:
    """Asks one service; every method raises ClientError.

    Args:
        url: where it is.
        key: an API key, if there is one.
        silence_s: a service that says nothing for so long has hung.

    Raises:
        ClientError: the URL or the key can't be one.

    """

    def __init__(self, url: str, key: str | None, *, silence_s: float = SILENCE_S) -> None:
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, UnicodeEncodeError):
            parsed = httpx2.URL()
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            said = f"APP_URL: {url!r} is no address such as http://127.0.0.1:8000"
            raise ClientError(said, exit_status=EXIT_USAGE)
        self._url = url
        self._has_key = bool(key)
        self._http = httpx2.Client(
            base_url=url,
            headers=key_headers(key),
            timeout=httpx2.Timeout(silence_s, connect=CONNECT_S),
            trust_env=not _is_loopback(parsed.host),  # a proxy doesn't reach this machine
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _failure: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str, params: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        """Return what a GET answers."""
        with self._open("GET", path, params=params) as response:
            return self._read(response.read())

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a POST of JSON answers."""
        with self._open("POST", path, json=body) as response:
            return self._read(response.read())

    def lines(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Give what a POST answers line by line; leaving early ends the work for it."""
        with self._open("POST", path, json=body) as response:
            for line in response.iter_lines():
                said = self._read(line)
                if error := said.get("error"):
                    raise self._refusal(error)
                yield said

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """Give the server-sent events of a GET; one called `error` is raised."""
        with self._open("GET", path, headers={"Accept": "text/event-stream"}) as response:
            name = ""
            for line in response.iter_lines():
                field, _, value = line.partition(":")
                if field == "event":
                    name = value.strip()
                elif field == "data":
                    said = self._read(value)
                    if name == "error":
                        raise self._refusal(said)
                    yield said

    @contextmanager
    def _open(self, method: str, path: str, **sent: Any) -> Iterator[httpx2.Response]:  # noqa: ANN401  # httpx2's own
        request = self._request(method, path, sent)
        try:
            with closing(self._http.send(request, stream=True)) as response:
                if response.status_code not in GOOD:
                    response.read()
                    raise self._failure(response)
                yield response
        except httpx2.ConnectError as failure:
            reason = str(failure).rpartition("] ")[2] or "connection failed"
            raise NoServiceError(
                f"nothing answers at {self._url} ({reason}): start the service with `make serve`,"
                " or say where it is with APP_URL"
            ) from None
        except httpx2.TimeoutException:
            raise NoServiceError(f"{self._url} doesn't answer") from None
        except httpx2.HTTPError:
            raise NoServiceError(f"the connection to {self._url} broke off") from None

    def _request(self, method: str, path: str, sent: Mapping[str, Any]) -> httpx2.Request:
        try:
            return self._http.build_request(method, path, **sent)
        except UnicodeEncodeError:
            said = "an argument is not UTF-8, and can't be sent"
            raise ClientError(said, exit_status=EXIT_USAGE) from None

    def _failure(self, response: httpx2.Response) -> ClientError:
        if response.status_code in ELSEWHERE:
            place = response.headers.get("Location", "another place")
            return NoServiceError(f"{self._url} sends on to {place}: set APP_URL to that address")
        problem = _problem(response.text)
        if problem is None:
            if response.status_code in IN_BETWEEN:
                said = f"something before the service answers {response.status_code}; try again"
                return ClientError(said, exit_status=EXIT_BUSY)
            return self._stranger()
        return self._refusal(problem, retry_after_s=response.headers.get("Retry-After"))

    def _refusal(
        self, problem: Mapping[str, Any], *, retry_after_s: str | None = None
    ) -> ClientError:
        """Return a problem in words that help."""
        status = problem.get("status", 500)
        said = str(problem.get("detail", "The service failed."))
        if fields := problem.get("errors"):
            said = "; ".join(_field(field) for field in fields)
        if status == UNAUTHORIZED:
            said = (
                "The service refuses the key in APP_KEY: it is wrong, expired or revoked."
                if self._has_key
                else "The service wants a key: put it in APP_KEY; `app keys create` makes one."
            )
        if problem.get("code") == "not_found":
            said = f"The service has no {problem.get('instance')}: is APP_URL its address alone?"
        if retry_after_s and f" {retry_after_s} s" not in said:
            said += f" Try again in {retry_after_s} s."
        exit_status = EXIT_INPUT if status in BAD_REQUEST else EXIT_FAILED
        if status not in BAD_REQUEST:
            said += f" (request {problem.get('request_id')})"
        return ClientError(said, exit_status=EXIT_STATUSES.get(status, exit_status))

    def _read(self, text: str | bytes) -> dict[str, Any]:
        """Return a JSON object; whoever sends something else is another service."""
        try:
            said = json.loads(text)
        except ValueError:
            raise self._stranger() from None
        if not isinstance(said, dict):
            raise self._stranger()
        return said

    def _stranger(self) -> ClientError:
        return NoServiceError(f"{self._url} answers, but it isn't this service: check APP_URL")


def _problem(text: str) -> dict[str, Any] | None:
    """Return a problem of the service; None for what anybody else answers."""
    try:
        said = json.loads(text)
    except ValueError:
        return None
    return said if isinstance(said, dict) and "code" in said else None


def _field(error: Mapping[str, Any]) -> str:
    place = ".".join(map(str, error.get("loc", [])[1:]))
    return f"{place}: {error.get('msg')}" if place else str(error.get("msg"))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
