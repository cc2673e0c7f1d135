"""A hub on loopback: as much of the Hugging Face hub's API as a download needs."""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from loopback import LoopbackServer

Files = Mapping[str, bytes]


class HubServer(LoopbackServer):
    """Serves what is published to it, notes each request, and fails to order.

    `stop()` makes it unreachable before the end; its `url` is the hub's endpoint.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []  # "GET /api/models/org/name/revision/main"
        self.refused: dict[str, HTTPStatus] = {}  # a part of a path → how it is answered
        self._commits: dict[tuple[str, str], Files] = {}
        self._branches: dict[tuple[str, str], str] = {}
        super().__init__(partial(_Handler, self))

    def publish(self, repo: str, files: Files, *, branch: str = "main") -> str:
        """Commit files to a branch; return the commit."""
        content = repr((repo, sorted(files.items()))).encode()
        commit = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        self._commits[repo, commit] = dict(files)
        self._branches[repo, branch] = commit
        return commit

    def fetched(self) -> list[str]:
        """Return the names of the files whose content was sent."""
        gets = [r.removeprefix("GET ") for r in self.requests if r.startswith("GET ")]
        return sorted(path.split("/", 5)[5] for path in gets if "/resolve/" in path)

    def find(self, repo: str, revision: str) -> tuple[str, Files] | None:
        """Return commit and files of a branch or commit."""
        commit = self._branches.get((repo, revision), revision)
        files = self._commits.get((repo, commit))
        return None if files is None else (commit, files)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request. HTTP/1.0: no connection outlives it, so a stopped hub is gone."""

    def __init__(self, hub: HubServer, *args: object) -> None:
        self._hub = hub
        super().__init__(*args)  # type: ignore[arg-type]  # request, address and server

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self._hub.requests.append(f"{self.command} {path}")
        for part, status in self._hub.refused.items():
            if part in path:
                self._answer(b"", status=status)
                return
        match path.split("/")[1:]:
            case ["api", "models", org, name, "revision", *rest]:
                self._tell_revision(f"{org}/{name}", "/".join(rest))
            case ["api", "models", org, name, "tree", revision]:
                self._list(f"{org}/{name}", revision)
            case [org, name, "resolve", revision, *rest]:
                self._send_file(f"{org}/{name}", revision, "/".join(rest))
            case _:
                self._answer(b"", status=HTTPStatus.NOT_IMPLEMENTED)

    do_HEAD = do_GET  # noqa: N815  # the name is http.server's

    def _tell_revision(self, repo: str, revision: str) -> None:
        if found := self._hub.find(repo, revision):
            commit, files = found
            siblings = [{"rfilename": name} for name in files]
            self._answer_json({"id": repo, "sha": commit, "siblings": siblings})
        else:
            self._answer(b"", status=HTTPStatus.NOT_FOUND, X_Error_Code="RepoNotFound")

    def _list(self, repo: str, revision: str) -> None:
        if found := self._hub.find(repo, revision):
            self._answer_json(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": _digest(content)}
                    for name, content in found[1].items()
                ]
            )
        else:
            self._answer(b"", status=HTTPStatus.NOT_FOUND, X_Error_Code="RevisionNotFound")

    def _send_file(self, repo: str, revision: str, name: str) -> None:
        found = self._hub.find(repo, revision)
        if found and name in found[1]:
            content = found[1][name]
            self._answer(content, X_Repo_Commit=found[0], ETag=f'"{_digest(content)}"')
        else:
            self._answer(b"", status=HTTPStatus.NOT_FOUND, X_Error_Code="EntryNotFound")

    def _answer_json(self, content: object) -> None:
        self._answer(json.dumps(content).encode(), Content_Type="application/json")

    def _answer(
        self, content: bytes, *, status: HTTPStatus = HTTPStatus.OK, **headers: str
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Stay silent; `requests` has it."""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
