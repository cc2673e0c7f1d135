"""How the address of a Redis or Valkey server is written, and how many connections it gets."""

from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

from app.errors import SettingsError

# Of a process, at once; on loopback a command takes less than a millisecond.
CONNECTIONS = 32
# As Celery writes it, and as `limits` does.
UNIX_SCHEMES = ("redis+socket://", "redis+unix://", "unix://")


def client_url(url: str) -> str:
    """Return an address in the client's spelling, from any of those that are in use."""
    for scheme in UNIX_SCHEMES:
        if url.startswith(scheme):
            # Celery writes the number of the database as `virtual_host`.
            path = url.removeprefix(scheme).replace("virtual_host=", "db=")
            return f"unix://{path}"
    return url


def make_pool(url: str) -> ConnectionPool:
    """Return a pool of connections, none of them made yet, whose commands have no timeouts.

    Args:
        url: `redis://`, `rediss://`, or `redis+socket://` and `unix://` with a path.

    Raises:
        SettingsError: the address can't be read; the message doesn't repeat it.

    """
    try:
        return ConnectionPool.from_url(
            client_url(url),
            max_connections=CONNECTIONS,
            socket_timeout=None,
            socket_connect_timeout=None,
        )
    except (ValueError, RedisError):
        raise SettingsError(
            "REDIS_URL: not an address of a Redis server, such as redis://host:6379/0"
        ) from None
