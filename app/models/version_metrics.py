"""Shows in metrics which models and versions serve, and how they share the traffic."""

from contextlib import suppress

from app.core.metrics import Metrics
from app.models.entries import ModelState
from app.models.rollback_rule import BOUNDS
from app.models.versions import Model


def show_model(model: Model, metrics: Metrics) -> None:
    """Set the gauges of a model, and of its versions where it has any."""
    name = model.spec.name
    if not model.entry.is_asleep:
        metrics.model_ready.labels(name).set(model.entry.state is ModelState.READY)
    else:
        with suppress(KeyError):
            metrics.model_ready.remove(name)  # an alert would wait for it
    if not model.has_versions:
        return
    # Made now: `increase`, and so alerts, wouldn't see the event that creates a series.
    for action in ("promote", "rollback", "follow"):
        metrics.model_swaps.labels(name, action, "failed")
    for rule in BOUNDS if model.spec.rollback is not None else ():
        metrics.model_rollbacks.labels(name, rule)
    shares = model.shares
    for version, entry in model.entries.items():
        metrics.model_version_ready.labels(name, version).set(entry.state is ModelState.READY)
        metrics.model_version_share.labels(name, version).set(shares[version])


def hide_model(model: Model, metrics: Metrics) -> None:
    """Forget the gauges of a model that is gone; an alert would wait for it."""
    name = model.spec.name
    metrics.model_ready.remove(name)
    for version in model.entries if model.has_versions else ():
        metrics.model_version_ready.remove(name, version)
        metrics.model_version_share.remove(name, version)
