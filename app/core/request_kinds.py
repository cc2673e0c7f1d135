"""Which requests can't take each other's places when there are too many."""

from collections.abc import Mapping
from enum import StrEnum
from urllib.parse import unquote_to_bytes


class RequestKind(StrEnum):
    """What a request asks for, as far as its load is concerned."""

    INFERENCE = "inference"  # a short answer of a model
    STREAM = "stream"  # a generation, which takes seconds
    OTHER = "other"  # documents, jobs, exports, keys, the page
    PROBE = "probe"  # what machines ask to see whether the service works; never refused
    ADMIN = "admin"  # whatever an administrator asks for while there is no other place


# Browsers ask with OPTIONS before a page's request; it runs no model.
WITHOUT_WORK = frozenset({b"OPTIONS"})


class PathKinds:
    """Finds the kind of a request by its path.

    Args:
        of_paths: the kinds of paths as routes write them: `/predict`, `/predict/{model_name}`.
            Where only one method runs a model, it stands before: `POST /`. Others are `OTHER`.
        root_path: what may stand before them.

    """

    def __init__(self, of_paths: Mapping[str, RequestKind], *, root_path: str = "") -> None:
        self._root_path = root_path.encode()
        self._exact = {p.encode(): kind for p, kind in of_paths.items() if "{" not in p}
        # By what stands before the parameter, and after it.
        self._below = {
            (p.partition("{")[0].encode(), p.rpartition("}")[2].encode()): kind
            for p, kind in of_paths.items()
            if "{" in p
        }
        # Those with several parameters, or one further in front: few, and looked at last.
        self._wide = tuple(
            (p.partition("{")[0].encode(), p.rpartition("}")[2].encode(), kind)
            for p, kind in of_paths.items()
            if p.count("{") > 1 or p.rpartition("}")[2].count("/") > 1
        )

    def without_prefix(self, path: bytes) -> bytes:
        """Return a path as routes have it."""
        if not self._root_path or not path.startswith(self._root_path + b"/"):
            return path
        return path[len(self._root_path) :]

    def of(self, path: bytes, method: bytes) -> RequestKind:
        """Return the kind.

        Args:
            path: as it was sent, without a query.
            method: in capitals.

        """
        if b"%" in path:  # the application sees it decoded
            path = unquote_to_bytes(path)
        path = self.without_prefix(path)
        kind = self._exact.get(path)
        if kind is None:
            last = path.rfind(b"/")
            before = path.rfind(b"/", 0, max(last, 0))
            kind = (
                self._exact.get(method + b" " + path)
                or self._below.get((path[: last + 1], b""))
                or self._below.get((path[: before + 1], path[last:]))
                or self._wide_kind(path)
            )
        return RequestKind.OTHER if kind is None or method in WITHOUT_WORK else kind

    def _wide_kind(self, path: bytes) -> RequestKind | None:
        for before, after, kind in self._wide:
            if path.startswith(before) and path.endswith(after):
                return kind
        return None
