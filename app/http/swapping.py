"""How a request changes a model: within bounds, and whether its caller waits or not."""

import asyncio

from app.models.swaps import Swap
from app.runtime.applying import check_changeable
from app.runtime.runtime import Runtime

# A model that is converted takes minutes; most clients and proxies don't wait longer than this.
WAIT_S = 60.0


async def carry_out(swap: Swap, runtime: Runtime, *, wait_s: float = WAIT_S) -> bool:
    """Do what is wanted; say whether it is done. It goes on if it isn't, or its caller leaves.

    Raises:
        NotReadyError: the service starts or ends.
        SwapRefusedError: this process is one of several front ends.
        ServiceError: as `Swaps.begin`, or why it failed.

    """
    is_decided = swap.action in {"promote", "rollback"}  # of what is loaded each process knows
    check_changeable(runtime, is_followed=is_decided and runtime.swaps.is_followed)
    task = runtime.swaps.begin(swap)
    done, _ = await asyncio.wait({task}, timeout=wait_s)
    if done:
        task.result()
    return bool(done)
