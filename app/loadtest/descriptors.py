"""How many connections the client may have open: as many as the machine lets this process have."""

import sys

if sys.platform != "win32":
    import resource

# Enough for 8,000 requests a second that all wait for a second; more is the client's own storm.
MAX_CONNECTIONS = 8192
RESERVE = 64  # for the event loop, the output, libraries


def connections_allowed(most: int = MAX_CONNECTIONS) -> int:
    """Raise the limit of open files as far as it may be raised and is needed; return the rest."""
    if sys.platform == "win32":
        return min(most, 512 - RESERVE)  # what a process of Windows may open by default
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + RESERVE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return most if soft == resource.RLIM_INFINITY else max(1, min(most, soft - RESERVE))
