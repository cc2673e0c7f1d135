"""How many files and connections this process may have open, and whether that is enough."""

import os
import resource

from app.core.redis_url import CONNECTIONS as REDIS_CONNECTIONS
from app.settings import Settings

# Left to files and to connections that go out, when connections that come in have the rest.
RESERVE = 16
# Libraries, the event loop, pipes and logs have about 40 when the service is ready.
AT_START = 64
# SQLite has its file, a log and an index of it.
PER_SQL_CONNECTION = 3
REDIS_POOLS = 2  # of limits, and of kept responses
# Callers at once that a service should have room for; its batches, queues and streams have more.
CALLERS = 200


def limit() -> int:
    """Return how many this process may have open now."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def needed_descriptors(settings: Settings) -> int:
    """Return how many it should be able to have open."""
    redis = REDIS_POOLS * REDIS_CONNECTIONS if settings.redis_url is not None else 0
    sql = PER_SQL_CONNECTION * settings.database_pool_size
    return AT_START + RESERVE + redis + sql + CALLERS


def is_short(any_open: int) -> bool:
    """Return whether only the reserve is left.

    Args:
        any_open: a descriptor; a copy of it gets the lowest free number.

    """
    try:
        lowest = os.dup(any_open)
    except OSError:
        return True
    os.close(lowest)
    return lowest >= limit() - RESERVE
