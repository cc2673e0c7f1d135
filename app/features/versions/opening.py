"""Opens what keeps which versions serve."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from app.core.background import run_in_background
from app.features.versions.settings import VersionsSettings
from app.features.versions.state import StateKeeper
from app.features.versions.trials import Trials
from app.runtime.runtime import Runtime


@asynccontextmanager
async def open_versions(runtime: Runtime, settings: VersionsSettings) -> AsyncIterator[None]:
    """Keep states during the block; those of before are there when it begins."""
    keeper = StateKeeper(runtime.require_database(), registry=runtime.registry, swaps=runtime.swaps)
    await keeper.restore()
    runtime.swaps.on_swap.append(keeper.note_swap)
    runtime.swaps.is_followed = True
    runtime.degraded.append(keeper.problem)
    runtime.provide(keeper)
    trials = Trials(
        runtime.entries, registry=runtime.registry, swaps=runtime.swaps, metrics=runtime.metrics
    )
    runtime.swaps.on_swap.append(trials.note_swap)
    runtime.entries = trials
    runtime.provide(trials)
    watch, after = partial(keeper.watch, every_s=settings.model_state_poll_s), runtime.loaded.wait
    async with (
        run_in_background(watch, name="model_states", after=after),
        run_in_background(trials.watch, name="model_trials", after=after),
    ):
        yield
