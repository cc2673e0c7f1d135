"""A Unix socket that only processes of this service can find: it has no name in the file system."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from app.errors import StartupError

# As many as there may be front ends, twice: those that have died wait there too.
BACKLOG = 128


@contextmanager
def nameless() -> Iterator[tuple[socket.socket, int]]:
    """Listen; give the socket, and a descriptor through which those that inherit it can connect.

    The descriptor names the socket's file, which is removed at once: a service that is killed
    leaves nothing behind, and no other process can connect. `/proc/self/fd/N` is the address.

    Raises:
        StartupError: there is no folder for a moment's file.

    """
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            with TemporaryDirectory(prefix="ml-api-") as folder:
                # By its descriptor: an address has 107 characters at most.
                opened = os.open(folder, os.O_PATH)
                try:
                    path = Path(f"/proc/self/fd/{opened}/engine")
                    listener.bind(str(path))
                    listener.listen(BACKLOG)
                    address = os.open(path, os.O_PATH)
                finally:
                    os.close(opened)
        except OSError as failure:
            raise StartupError(f"no socket for the process of the models: {failure}") from failure
        stack.callback(os.close, address)
        yield listener, address
