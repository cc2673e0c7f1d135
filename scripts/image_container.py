"""Runs an image's files as a container would: read-only, without capabilities, as its own user.

The nearest to `docker run --read-only --cap-drop ALL --security-opt no-new-privileges` that needs
no container engine: namespaces of mounts and processes, and `setpriv` of the image. It shares this
machine's network, and has no seccomp filter.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STOP_TIMEOUT_S = 60
# $1 is the root folder, $2 the one for /data; the rest is the command.
ENTER = """
set -e
root=$1 data=$2; shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=1777,nosuid,nodev,size=256m tmpfs "$root/tmp"
mount --bind "$data" "$root/data"
exec /usr/sbin/chroot "$root" "$@"
"""
NO_PRIVILEGES = (
    *("--clear-groups", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"),
    "--no-new-privs",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A program of the image: process 1 of its namespace."""

    process: subprocess.Popen[bytes]  # unshare's, which ends as the program does
    log_file: Path

    @property
    def log(self) -> str:
        """What the program has printed."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def pid(self) -> int:
        """The program's number outside its namespace."""
        number = self.process.pid
        return int(Path(f"/proc/{number}/task/{number}/children").read_text().split()[0])

    def status(self, field: str) -> str:
        """Return a field of the kernel's account of the process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{field}:"))

    def stop(self) -> int:
        """Send SIGTERM, as an engine does, and return the exit status."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image's files, and what its configuration says of running them."""

    root: Path
    user: str  # two numbers
    environment: Mapping[str, str]
    command: Sequence[str]

    @contextmanager
    def running(self, folder: Path, *command: str, **environment: str) -> Iterator[Container]:
        """Run the image's command or another one; kill it when the block ends.

        Args:
            folder: for /data and the log; made.
            command: instead of the image's own.
            environment: beside the image's own.

        """
        uid, gid = map(int, self.user.split(":"))
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        os.chown(data, uid, gid)
        log_file = folder / "log"
        # Process 1 has to be the program itself: the shell and setpriv replace themselves.
        program = [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts"),
            *("sh", "-c", ENTER, "enter", str(self.root), str(data)),
            *("setpriv", f"--reuid={uid}", f"--regid={gid}", *NO_PRIVILEGES),
            *(command or self.command),
        ]
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                program,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Container(process=process, log_file=log_file)
        finally:
            process.kill()
            process.wait(STOP_TIMEOUT_S)

    def call(self, folder: Path, *command: str, **environment: str) -> tuple[int, str]:
        """Run a command to its end; return its exit status and what it printed."""
        with self.running(folder, *command, **environment) as container:
            return container.process.wait(STOP_TIMEOUT_S), container.log
