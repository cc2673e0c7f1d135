"""The answer of an overloaded service, as bytes that are mostly made beforehand."""

import json
from datetime import UTC, datetime
from urllib.parse import quote

from app.errors import OverloadedError
from app.http.error_bodies import (
    MAX_PATH_CHARS,
    ErrorBody,
    dialect_of,
    openai_error,
    plain_error,
    problem,
    tei_error,
)

STATUS = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: "
ERROR = OverloadedError()
DIALECTS: dict[ErrorBody, bytes] = {
    dialect: json.dumps(dialect(ERROR)).encode()
    for dialect in (openai_error, plain_error, tei_error)
}
# A problem's members are the same in each, but for the last three.
CHANGING = frozenset({"instance", "request_id", "timestamp"})
PROBLEM = json.dumps(
    {k: v for k, v in problem(ERROR, path="", request_id="").items() if k not in CHANGING}
)[:-1].encode()
# Most requests in a storm have the same few paths; others come from clients, who may make them up.
MAX_CACHED = 64


class PreparedAnswers:
    """Makes answers with the code `overloaded`: problems, or as the dialect of the path has it."""

    def __init__(self) -> None:
        self._shapes: dict[bytes, tuple[bytes | None, bytes]] = {}

    def make(
        self,
        path: bytes,
        *,
        request_id: bytes,
        retry_after_s: int,
        is_kept: bool,
        has_body: bool = True,
    ) -> bytes:
        """Return the whole answer.

        Args:
            path: of the request, as it was sent.
            request_id: of the request; letters, digits, dots, dashes and underscores.
            retry_after_s: for its client to wait.
            is_kept: whether the connection stays open.
            has_body: False for the answer to HEAD, which says how long its body would be.

        """
        prepared, instance = self._shape(path)
        if prepared is not None:
            kind, body = b"application/json", prepared
        else:
            kind = b"application/problem+json"
            now = datetime.now(UTC).isoformat(timespec="milliseconds")[:-6].encode()
            body = b'%b, "instance": "%b", "request_id": "%b", "timestamp": "%bZ"}' % (
                *(PROBLEM, instance, request_id, now),
            )
        return b"%b%b\r\nretry-after: %d\r\nx-request-id: %b\r\ncontent-length: %d\r\n%b\r\n%b" % (
            *(STATUS, kind, retry_after_s, request_id, len(body)),
            b"" if is_kept else b"connection: close\r\n",
            body if has_body else b"",
        )

    def _shape(self, path: bytes) -> tuple[bytes | None, bytes]:
        """Return the body that a path's dialect has, and how a problem's `instance` writes it."""
        shape = self._shapes.get(path)
        if shape is None:
            text = path.decode("latin-1")
            dialect = dialect_of(text)
            shape = DIALECTS[dialect] if dialect else None, quote(text[:MAX_PATH_CHARS]).encode()
            if len(self._shapes) < MAX_CACHED:
                self._shapes[path] = shape
        return shape
