"""What `/ready` and the log say of models that don't serve yet, or never will."""

import time

from app.models.entries import ModelEntry, ModelState
from app.models.registry import ModelRegistry
from app.models.schemas import LoadProgress
from app.models.steps import LoadSteps


def awaited(registry: ModelRegistry, steps: LoadSteps) -> str:
    """Say in a sentence why the service isn't ready."""
    entries = registry.entries
    if not entries:
        return "The catalogue has no models."
    waiting = registry.awaited
    if not waiting:
        names = ", ".join(entry.spec.name for entry in entries)
        return f"No model serves: {names} could not be loaded; GET /models says why."
    ready = sum(entry.state_now is ModelState.READY for entry in entries)
    models = ", ".join(_describe(entry, steps) for entry in waiting)
    return f"Waiting for {models}; {ready} of {len(entries)} models serve."


def loading(registry: ModelRegistry, steps: LoadSteps) -> list[str]:
    """Return a line for each model that still loads."""
    return [_describe(entry, steps) for entry in registry.all_entries if entry.is_loading]


def reduced(registry: ModelRegistry) -> list[str]:
    """Return the models that lack processes, each with how many are up."""
    counts = (
        (entry.label, entry.processes)
        for entry in registry.all_entries
        if entry.state_now is not ModelState.FAILED  # which is said elsewhere
    )
    return [
        f"{name}: {count.ready} of {count.wanted} processes"
        for name, count in counts
        if count is not None and count.ready < count.wanted
    ]


def progress(entry: ModelEntry, steps: LoadSteps) -> LoadProgress | None:
    """Return how far a model has come; None where it serves, or has nothing to prepare."""
    step = steps.last(entry.label)
    if not entry.is_loading or step is None:
        return None
    return LoadProgress(step=step.name, number=step.number, of=step.of, seconds=_seconds(entry))


def _describe(entry: ModelEntry, steps: LoadSteps) -> str:
    name, step = entry.label, steps.last(entry.label)
    if not entry.is_loading or entry.began_s is None:
        return f"{name} ({entry.state_now})"
    at = f"step {step.number} of {step.of}: {step.name}" if step else entry.state
    return f"{name} ({at}, {_seconds(entry):.0f} s so far)"


def _seconds(entry: ModelEntry) -> float:
    """Return for how long a model has been loading."""
    return 0.0 if entry.began_s is None else round(time.monotonic() - entry.began_s, 1)
