"""The prefix under which a proxy publishes the service, such as `/ml`."""

import re

# Segments that need no encoding, none of them a step of a path.
PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")
MAX_CHARS = 200


def read_prefix(text: str) -> str | None:
    """Return a prefix without a slash at its end, "" for none; None: it can't be one."""
    prefix = text.strip().rstrip("/")
    if prefix and (len(prefix) > MAX_CHARS or not PREFIX.fullmatch(prefix)):
        return None
    return prefix


def forwarded_prefix(header: str) -> str | None:
    """Return what `X-Forwarded-Prefix` says, the outermost proxy first; None: it can't be one."""
    parts = [read_prefix(part) for part in header.split(",")]
    whole = "".join(part or "" for part in parts)
    return None if None in parts else read_prefix(whole)


def without_prefix(path: str, prefix: str) -> str:
    """Return a path as routes have it, whether a proxy has taken the prefix away or not."""
    if not prefix or not path.startswith(prefix):
        return path
    rest = path[len(prefix) :]
    if not rest:
        return "/"
    return rest if rest.startswith("/") else path
