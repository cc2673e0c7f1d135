"""How a request that is cancelled tells the end of the process from a client that left."""

import asyncio
from typing import Final

# uvicorn's own word has it too: "timeout graceful shutdown exceeded".
SHUTDOWN: Final = "shutdown"
TIME_IS_OVER: Final = f"{SHUTDOWN}: the time of requests in flight is over"


def is_shutdown(cancelled: asyncio.CancelledError) -> bool:
    """Say whether the server has cancelled a request because the process ends."""
    return any(SHUTDOWN in str(argument) for argument in cancelled.args)
