"""What `[[models.versions]]` may say: the versions of one model, and how they share its traffic."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.engines.base import Task

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Their vectors are stored and compared: those of two versions can't be.
WITHOUT_VERSIONS = frozenset({Task.EMBEDDING.value, Task.IMAGE_EMBEDDING.value})
# Their answers aren't copied: a chat is a stream, and a picture is too large to be kept waiting.
WITHOUT_SHADOWS = frozenset({Task.CHAT.value, Task.IMAGE_CLASSIFICATION.value})
# What a version may have instead of its entry.
OWN_FIELDS = frozenset({"source", "adapter", "sha256", "fake"})
# What belongs to the files of a source, and so goes with it.
OF_SOURCE = ("adapter", "sha256")
LARGEST_WEIGHT = 1_000_000


class VersionSpec(BaseModel):
    """One version of a model; what it doesn't say its entry does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    source: str | None = None
    adapter: str | None = None
    sha256: Mapping[str, Sha256] | Sha256 | None = None
    fake: Mapping[str, Any] = {}
    weight: float | None = Field(None, ge=0, le=LARGEST_WEIGHT)  # of the traffic
    shadow: bool = False  # gets copies, and answers nobody
    allow_remote_shadow: bool = False  # copies may go to another server

    def over(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return an entry's fields with those of this version."""
        kept = dict(entry)
        if self.source is not None:
            for name in OF_SOURCE:
                kept.pop(name, None)
        return kept | self.model_dump(exclude_unset=True, include=set(OWN_FIELDS))


def check_versions(versions: Sequence[VersionSpec], *, task: str, is_remote: bool = False) -> None:
    """Refuse versions that can't be told apart, or among which nothing could choose.

    Raises:
        ValueError: says what is wrong.

    """
    if not versions:
        return
    if task in WITHOUT_VERSIONS:
        raise ValueError(
            f"a model of the task {task} can't have any: vectors of two versions can't be compared;"
            " give the other one an entry of its own"
        )
    names = [one.version for one in versions]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two have the same name: {', '.join(twice)}")
    for one in versions:
        if one.shadow and task in WITHOUT_SHADOWS:
            raise ValueError(f"{one.version!r}: a model of the task {task} can't have shadows")
        if one.shadow and one.weight:
            raise ValueError(f"{one.version!r}: a shadow answers nobody, so it has no weight")
        if one.shadow and is_remote and not one.allow_remote_shadow:
            raise ValueError(
                f"{one.version!r}: copies of what clients send would go to another server; if they"
                " may, say allow_remote_shadow = true"
            )
    if not any(weights_of(versions).values()):
        raise ValueError("none of them gets any traffic: give one a weight")


def weights_of(versions: Sequence[VersionSpec]) -> dict[str, float]:
    """Return the weight of each version, by its name.

    Where none is given, the first version that isn't a shadow gets all; else one without gets none.
    """
    weights = {one.version: one.weight or 0.0 for one in versions}
    if all(one.weight is None for one in versions):
        first = next((one for one in versions if not one.shadow), None)
        if first is not None:
            weights[first.version] = 1.0
    return weights


def serving_of(weights: Mapping[str, float]) -> str:
    """Return the name of the version with most of the traffic; the first of those with as much."""
    return max(weights, key=weights.__getitem__)
