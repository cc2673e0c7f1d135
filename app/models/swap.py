"""What somebody wants to change of a model, and whether that can be."""

from dataclasses import dataclass
from typing import Literal

from app.errors import SwapRefusedError
from app.models.versions import Model, Traffic

Action = Literal["load", "unload", "promote", "rollback", "follow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """A change of a model that somebody wants.

    Args:
        action: what is to be done.
        model: its name.
        version: which one; None: the model, or the version that the action is about anyhow.
        percent: `promote`: its share of the requests; None: all, and it serves from then on.
        traffic: `follow`: what another replica has decided.
        by: who wants it, for the log.

    """

    action: Action
    model: str
    version: str | None = None
    percent: float | None = None
    traffic: Traffic | None = None
    by: str | None = None


def check_unload(model: Model, version: str | None) -> None:
    """Refuse to unload what has to serve.

    Raises:
        SwapRefusedError: says why.

    """
    if model.entry.is_required and (version is None or not model.has_versions):
        raise SwapRefusedError("The model is required: without it the service isn't ready.")
    if version is not None and model.has_versions and version == model.serving:
        raise SwapRefusedError("This version serves; promote another one first.")


def only_other(model: Model) -> str:
    """Return the version to promote where the request names none.

    Raises:
        SwapRefusedError: there are several.

    """
    others = [name for name in model.entries if name != model.serving]
    sharing = [name for name in others if model.weights[name]]
    found = sharing or others
    if len(found) != 1:
        raise SwapRefusedError(f"Name a version; there are {', '.join(found) or 'no others'}.")
    return found[0]
