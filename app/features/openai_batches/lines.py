"""The lines of an input file: cut out of its chunks, checked, and read as requests."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from app.features.openai_batches.values import Line, LineError

MAX_ERRORS = 100  # of a file: more help nobody
MAX_ID_CHARS = 512
NEEDED = ("custom_id", "method", "url", "body")
# Of a line around its request's body.
AROUND_BYTES = 4_096


@dataclass(slots=True)
class LineCutter:
    """Cuts a file into lines, chunk by chunk; holds at most one that isn't complete.

    Args:
        offset: of the file, where the first chunk begins to count.
        max_bytes: that are kept of a line; a longer one comes as None.

    """

    offset: int
    max_bytes: int
    _rest: list[bytes] = field(default_factory=list)
    _rest_bytes: int = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes | None]]:
        """Take a chunk; yield the lines that end in it, each with the offset of what follows."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._keep(chunk[start : end + 1])
            yield self._line()
            start = end + 1
        self._keep(chunk[start:])

    def finish(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield the last line, where it doesn't end with a line feed."""
        if self._rest_bytes:
            yield self._line()

    def _keep(self, piece: bytes) -> None:
        self._rest_bytes += len(piece)
        if self._rest_bytes <= self.max_bytes:
            self._rest.append(piece)
        else:
            self._rest.clear()

    def _line(self) -> tuple[int, bytes | None]:
        self.offset += self._rest_bytes
        line = b"".join(self._rest) if self._rest_bytes <= self.max_bytes else None
        self._rest.clear()
        self._rest_bytes = 0
        return self.offset, line


async def cut_lines(
    chunks: AsyncIterator[bytes], cutter: LineCutter
) -> AsyncIterator[list[tuple[int, bytes]]]:
    """Yield the lines of each chunk; empty ones are left out."""
    async for chunk in chunks:
        yield [(end, line) for end, line in cutter.feed(chunk) if line and line.strip()]
    yield [(end, line) for end, line in cutter.finish() if line and line.strip()]


def read_line(end: int, text: bytes) -> Line:
    """Return the request in a line that was checked."""
    request = from_json(text, allow_inf_nan=False)
    body = request["body"]
    return Line(
        end=end,
        custom_id=request["custom_id"],
        body=to_json(body),
        is_streamed=bool(body.get("stream")),
    )


class LineChecker:
    """Checks the lines of a file, one after the other; remembers their ids by their hashes.

    Args:
        endpoint: of the batch, which each line must name.
        max_lines: that a batch may have.
        max_bytes: of one line.

    """

    def __init__(self, endpoint: str, *, max_lines: int, max_bytes: int) -> None:
        self.errors: list[LineError] = []
        self.total = 0
        self._endpoint = endpoint
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._number = 0
        self._ids: set[bytes] = set()
        self._cutter = LineCutter(0, max_bytes)

    @property
    def is_done(self) -> bool:
        """Whether it needn't see the rest: so much is wrong already."""
        return len(self.errors) >= MAX_ERRORS or self.total > self._max_lines

    def feed(self, chunk: bytes) -> None:
        """Check the lines that end in a chunk."""
        for _, line in self._cutter.feed(chunk):
            self._check(line)

    def finish(self) -> None:
        """Check the last line, and the file as a whole."""
        for _, line in self._cutter.finish():
            self._check(line)
        if self.total > self._max_lines:
            message = f"The file has more than {self._max_lines} lines."
            self.errors = [LineError(code="too_many_lines", message=message)]
        elif not self.total and not self.errors:
            self.errors = [LineError(code="empty_file", message="The file has no lines.")]

    def _check(self, line: bytes | None) -> None:
        self._number += 1
        if self.is_done or (line is not None and not line.strip()):
            return
        self.total += 1
        if line is None:
            self._fail("line_too_long", f"This line is longer than {self._max_bytes} bytes.")
            return
        try:
            request = from_json(line, allow_inf_nan=False)
        except ValueError:
            self._fail("invalid_json_line", "This line is not parseable as valid JSON.")
            return
        if isinstance(request, dict):
            self._check_request(request)
        else:
            self._fail("invalid_json_line", "This line is not a JSON object.")

    def _check_request(self, request: dict[str, Any]) -> None:
        for name in NEEDED:
            if request.get(name) is None:
                message = f"Missing required parameter: '{name}'."
                self._fail("missing_required_parameter", message, name)
                return
        custom_id = request["custom_id"]
        if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= MAX_ID_CHARS:
            message = f"'custom_id' must be a text of 1 to {MAX_ID_CHARS} characters."
            self._fail("invalid_custom_id", message, "custom_id")
        elif request["method"] != "POST":
            self._fail("invalid_method", "'method' must be 'POST'.", "method")
        elif request["url"] != self._endpoint:
            message = f"'url' must be the batch's endpoint, '{self._endpoint}'."
            self._fail("mismatched_url", message, "url")
        elif not isinstance(request["body"], dict):
            self._fail("invalid_body", "'body' must be a JSON object.", "body")
        else:
            self._check_unique(custom_id)

    def _check_unique(self, custom_id: str) -> None:
        digest = hashlib.blake2b(custom_id.encode(), digest_size=16).digest()
        if digest in self._ids:
            message = "This 'custom_id' is also another line's; each must be unique in its file."
            self._fail("duplicate_custom_id", message, "custom_id")
        self._ids.add(digest)

    def _fail(self, code: str, message: str, param: str | None = None) -> None:
        self.errors.append(LineError(code=code, message=message, param=param, line=self._number))
