"""Opens what keeps which versions serve."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from app.core.background import run_in_background
from app.features.versions.settings import VersionsSettings
from app.features.versions.state import StateKeeper
from app.runtime.runtime import Runtime


@asynccontextmanager
async def open_versions(runtime: Runtime, settings: VersionsSettings) -> AsyncIterator[None]:
    """Keep states during the block; those of before are there when it begins."""
    keeper = StateKeeper(runtime.require_database(), registry=runtime.registry, swaps=runtime.swaps)
    await keeper.restore()
    runtime.swaps.on_swap.append(keeper.store)
    runtime.swaps.is_followed = True
    runtime.degraded.append(keeper.problem)
    runtime.provide(keeper)
    watch = partial(keeper.watch, every_s=settings.model_state_poll_s)
    async with run_in_background(watch, name="model_states", after=runtime.loaded.wait):
        yield
