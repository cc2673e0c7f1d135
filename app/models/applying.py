"""Takes over a catalogue that has changed while its models serve."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from app.errors import CatalogError, StartupError
from app.models.catalog import Catalog, ModelSpec
from app.models.entries import ModelEntry
from app.models.registry import ModelRegistry
from app.models.versions import ONLY, Model, model_of

log = logging.getLogger(__name__)

# What other parts of the process were made with.
FIXED = ("task", "engine", "default", "required", "uses", "load")
Outcome = Literal["added", "changed", "removed", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of a model whose entry has changed; `reason` says why it failed."""

    model: str
    outcome: Outcome
    reason: str | None = None


def check_change(old: Catalog, new: Catalog) -> None:
    """Refuse a catalogue that needs a restart.

    Raises:
        CatalogError: names each model, and what of it has changed.

    """
    if wrong := list(_fixed(old, new)):
        raise CatalogError(f"this needs a restart: {'; '.join(wrong)}")


def _fixed(old: Catalog, new: Catalog) -> Iterator[str]:
    """Yield what only a restart can change."""
    for spec in old.specs:
        other = new.get(spec.name)
        if other is None:
            yield from _gone(old, spec)
        else:
            changed = [name for name in FIXED if getattr(spec, name) != getattr(other, name)]
            yield from (f"model {spec.name!r}: {name}" for name in changed)
    keys = {spec.api_key_env for spec in old.specs}
    for spec in new.specs:
        if old.get(spec.name) is None and new.is_required(spec):
            yield f"model {spec.name!r}: it is new, and required"
        if spec.api_key_env not in {None, *keys}:  # Python classes are kept from seeing them
            yield f"model {spec.name!r}: api_key_env"


def _gone(old: Catalog, spec: ModelSpec) -> Iterator[str]:
    if old.is_required(spec):
        yield f"model {spec.name!r}: it is required, and is gone"
    elif old.default(spec.task) == spec.name:
        yield f"model {spec.name!r}: it is the default of {spec.task}, and is gone"


async def apply(registry: ModelRegistry, catalog: Catalog) -> list[Applied]:
    """Load what is new, switch to it, and unload what is gone, one model after the other.

    A model of which a version can't be loaded stays as it is, with its old entry.

    Raises:
        CatalogError: it needs a restart; nothing has changed.

    """
    old = registry.catalog
    check_change(old, catalog)
    applied: list[Applied] = []
    for spec in catalog.specs:
        before = old.get(spec.name)
        if before == spec:
            continue
        failure = await _take_over(registry, model_of(spec, catalog))
        outcome: Outcome = "failed" if failure else "changed" if before else "added"
        applied.append(Applied(model=spec.name, outcome=outcome, reason=failure))
    for spec in old.specs:
        if catalog.get(spec.name) is None:
            registry.remove(spec.name)
            applied.append(Applied(model=spec.name, outcome="removed"))
    failed = {one.model for one in applied if one.outcome == "failed"}
    kept = [old.get(spec.name) if spec.name in failed else spec for spec in catalog.specs]
    registry.adopt(Catalog(list(filter(None, kept)), folder=catalog.folder))
    for one in applied:
        fields = {"model": one.model, "outcome": one.outcome, "reason": one.reason}
        log.info("model_applied", extra={k: v for k, v in fields.items() if v is not None})
    return applied


async def _take_over(registry: ModelRegistry, model: Model) -> str | None:
    """Put a model in the place of the one of its name; return why it can't be loaded."""
    before = registry.find(model.spec.name)
    old = before.entries if before is not None else {}
    carried = {
        name: old[name]
        for name, entry in model.entries.items()
        if name in old and old[name].served and old[name].to_load == entry.to_load
    }
    loaded = [one for one in model.to_bring if (one.version_name or ONLY) not in carried]
    try:
        for entry in loaded:
            await registry.bring(entry)
    except StartupError as failure:
        for entry in loaded:
            registry.drop(entry)
        return failure.line
    for name, entry in carried.items():
        _renew(entry, model.entries[name])
        model.entries[name] = entry
    if before is not None and before.serving in model.entries:
        model.previous = before.serving if before.serving != model.serving else before.previous
    registry.put(model)
    registry.show(model)
    for name, entry in old.items():
        if carried.get(name) is not entry or not model.is_used(name):
            registry.drop(entry)
    return None


def _renew(entry: ModelEntry, of: ModelEntry) -> None:
    """Give what is loaded the fields of the new catalogue."""
    entry.spec, entry.version, entry.loads = of.spec, of.version, of.loads
    entry.is_default, entry.is_required = of.is_default, of.is_required
