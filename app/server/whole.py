"""Refuses a request that has been read to its last byte, without a parser.

While requests are refused most of them are small and come in one piece; the parser with its
callbacks costs five times what the answer does.
"""

import re

from app.server.gate import Place
from app.server.overload import Head, Overload

# A request that is longer has its parser.
MOST_BYTES = 4_096
FIRST_LINE = re.compile(rb"(GET|POST|PUT|PATCH|DELETE) (/[!->@-~]*)(?:\?[!-~]*)? HTTP/1\.1")
# RFC 9112: nothing between a name and its colon, no folded line, no control character.
LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*")
# What makes it uncertain where a request ends, or who reads its answer.
UNUSUAL = frozenset({b"transfer-encoding", b"expect", b"upgrade"})


def read_head(received: bytes, *, is_kept: bool = False) -> Head | None:
    """Return the head of a request that has been received to its last byte; None for all else.

    Args:
        received: all that was read, and nothing of the next request.
        is_kept: whether its connection stays open, unless it asks for something else.

    """
    head, end, body = received.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    asked = FIRST_LINE.fullmatch(first)
    if not end or asked is None:
        return None
    headers, lengths = [], [0]
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in UNUSUAL or not LINE.fullmatch(line):
            return None
        value = value.strip(b" \t")
        headers.append((name, value))
        if name == b"content-length":
            if not value.isdigit():
                return None
            lengths.append(int(value))
        elif is_kept and name == b"connection" and value.lower() != b"keep-alive":
            return None
    if len(lengths) > 2 or lengths[-1] != len(body):  # noqa: PLR2004  # one header at most
        return None
    return Head(path=asked[2], method=asked[1], headers=headers, is_kept=is_kept)


def refuse_whole(
    overload: Overload, received: bytes, *, opening: int = 0, is_kept: bool = False
) -> bytes | None:
    """Return the answer to a request that isn't let in; None: it needs a parser, or comes in.

    Args:
        overload: decides, and makes the answer.
        received: all that was read, and nothing of the next request.
        opening: other requests that may be let in before it, for all that is known.
        is_kept: whether its connection stays open.

    """
    if len(received) > MOST_BYTES:
        return None
    head = read_head(received, is_kept=is_kept)
    if head is None:
        return None
    kind = overload.kinds.of(head.path, head.method)
    if isinstance(overload.let_in(kind, head.headers, opening=opening), Place):
        return None  # a probe, or an administrator's
    return overload.refusal(head)
