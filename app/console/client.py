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

SUCCESSES = range(200, 300)
REDIRECTS = range(300, 400)
BAD_REQUEST = range(400, 500)
UNAUTHORIZED = 401
# Statuses of load balancers themselves, when a service is down or late.
GATEWAY_STATUSES = (502, 503, 504)
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

    def __init__(self, message: str, *, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class NoServiceError(ClientError):
    """Nothing answers, or not completely, or another service does."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_status=EXIT_NO_SERVICE)


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
            message = f"APP_URL: {url!r} is no address such as http://127.0.0.1:8000"
            raise ClientError(message, exit_status=EXIT_USAGE)
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
                item = self._read(line)
                if error := item.get("error"):
                    raise self._refusal(error)
                yield item

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """Give the server-sent events of a GET; one called `error` is raised."""
        with self._open("GET", path, headers={"Accept": "text/event-stream"}) as response:
            name = ""
            for line in response.iter_lines():
                field, _, value = line.partition(":")
                if field == "event":
                    name = value.strip()
                elif field == "data":
                    data = self._read(value)
                    if name == "error":
                        raise self._refusal(data)
                    yield data

    @contextmanager
    def _open(self, method: str, path: str, **content: Any) -> Iterator[httpx2.Response]:  # noqa: ANN401  # httpx2's own
        request = self._request(method, path, content)
        try:
            with closing(self._http.send(request, stream=True)) as response:
                if response.status_code not in SUCCESSES:
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

    def _request(self, method: str, path: str, content: Mapping[str, Any]) -> httpx2.Request:
        try:
            return self._http.build_request(method, path, **content)
        except UnicodeEncodeError:
            message = "an argument is not UTF-8, and can't be sent"
            raise ClientError(message, exit_status=EXIT_USAGE) from None

    def _failure(self, response: httpx2.Response) -> ClientError:
        if response.status_code in REDIRECTS:
            place = response.headers.get("Location", "another place")
            return NoServiceError(f"{self._url} sends on to {place}: set APP_URL to that address")
        problem = _problem(response.text)
        if problem is None:
            if response.status_code in GATEWAY_STATUSES:
                message = f"something before the service answers {response.status_code}; try again"
                return ClientError(message, exit_status=EXIT_BUSY)
            return self._other_service()
        return self._refusal(problem, retry_after_s=response.headers.get("Retry-After"))

    def _refusal(
        self, problem: Mapping[str, Any], *, retry_after_s: str | None = None
    ) -> ClientError:
        """Return the error for a problem, with advice."""
        status = problem.get("status", 500)
        message = str(problem.get("detail", "The service failed."))
        if fields := problem.get("errors"):
            message = "; ".join(_field(field) for field in fields)
        if status == UNAUTHORIZED:
            message = (
                "The service refuses the key in APP_KEY: it is wrong, expired or revoked."
                if self._has_key
                else "The service wants a key: put it in APP_KEY; `app keys create` makes one."
            )
        if problem.get("code") == "not_found":
            message = f"The service has no {problem.get('instance')}: is APP_URL its address alone?"
        if retry_after_s and f" {retry_after_s} s" not in message:
            message += f" Try again in {retry_after_s} s."
        exit_status = EXIT_INPUT if status in BAD_REQUEST else EXIT_FAILED
        if status not in BAD_REQUEST:
            message += f" (request {problem.get('request_id')})"
        return ClientError(message, exit_status=EXIT_STATUSES.get(status, exit_status))

    def _read(self, text: str | bytes) -> dict[str, Any]:
        """Return a JSON object; anything else comes from another service."""
        try:
            document = json.loads(text)
        except ValueError:
            raise self._other_service() from None
        if not isinstance(document, dict):
            raise self._other_service()
        return document

    def _other_service(self) -> ClientError:
        return NoServiceError(f"{self._url} answers, but it isn't this service: check APP_URL")


def _problem(text: str) -> dict[str, Any] | None:
    """Return a problem of the service; None for another's answer."""
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) and "code" in document else None


def _field(error: Mapping[str, Any]) -> str:
    place = ".".join(map(str, error.get("loc", [])[1:]))
    return f"{place}: {error.get('msg')}" if place else str(error.get("msg"))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
