"""A model and its versions: which of them serves, and which one a request gets."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.core.version_choice import VersionChoice
from app.errors import ModelVersionNotFoundError
from app.models.catalog import Catalog, ModelSpec
from app.models.entries import ModelEntry, ModelState
from app.models.traffic import choose
from app.models.version_specs import serving_of, weights_of

WHOLE = 100.0  # per cent
ONLY = ""  # the name of a version of which there are no others


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Which versions of a model answer.

    Args:
        serving: the version for which `/ready` waits, and that others are compared with.
        weights: of each version; its share is its own over the sum of all.
        previous: the version that served before, if there was one.

    """

    serving: str
    weights: Mapping[str, float]
    previous: str | None = None


@dataclass(slots=True, kw_only=True)
class Model:
    """A model of the catalogue. Use it on the event loop only.

    Args:
        spec: its entry in the catalogue.
        entries: of its versions, by their names, in the catalogue's order.
        serving: the version for which `/ready` waits, and that others are compared with.
        weights: of the versions, in the traffic.
        previous: the version that served before, if there was one.

    """

    spec: ModelSpec
    entries: dict[str, ModelEntry]
    serving: str
    weights: dict[str, float] = field(default_factory=dict)
    previous: str | None = None

    @property
    def entry(self) -> ModelEntry:
        """The version that serves."""
        return self.entries[self.serving]

    @property
    def has_versions(self) -> bool:
        """Whether the catalogue names any."""
        return bool(self.spec.versions)

    @property
    def shares(self) -> Mapping[str, float]:
        """Each version's share of the traffic, from 0 to 1, as it is meant to be."""
        total = sum(self.weights.values())
        return {name: weight / total for name, weight in self.weights.items()}

    @property
    def loaded(self) -> list[str]:
        """The names of its versions that serve; none where the catalogue names none."""
        ready = (name for name, one in self.entries.items() if one.state is ModelState.READY)
        return list(ready) if self.has_versions else []

    def is_used(self, name: str) -> bool:
        """Say whether a version gets requests, or copies of them."""
        version = self.entries[name].version
        is_shadow = version is not None and version.shadow
        return name == self.serving or is_shadow or self.weights[name] > 0

    @property
    def traffic(self) -> Traffic:
        """Which of its versions answer."""
        return Traffic(serving=self.serving, weights=dict(self.weights), previous=self.previous)

    def take(self, traffic: Traffic) -> None:
        """Let other versions answer; each has to be one of its own."""
        is_required, self.entry.is_required = self.entry.is_required, False
        self.serving, self.previous = traffic.serving, traffic.previous
        self.entry.is_required = is_required
        self.weights = {one: traffic.weights.get(one, 0.0) for one in self.entries}

    def with_share(self, name: str, percent: float | None) -> Traffic:
        """Return the traffic in which a version has a part of the requests.

        The one that serves has the others. Where it is all of them (None), the version serves.
        """
        if percent is None:
            previous = self.previous if name == self.serving else self.serving
            return Traffic(serving=name, weights={name: 1.0}, previous=previous)
        weights = {self.serving: WHOLE - percent, name: percent}
        return Traffic(serving=self.serving, weights=weights, previous=self.previous)

    @property
    def is_shared(self) -> bool:
        """Whether another version than the one that serves gets requests."""
        return any(weight for name, weight in self.weights.items() if name != self.serving)

    @property
    def shadows(self) -> list[str]:
        """The names of its shadows that are loaded."""
        return [
            name
            for name, one in self.entries.items()
            if one.version and one.version.shadow and one.state is ModelState.READY
        ]

    def plan(self) -> None:
        """Say before anything is loaded which versions will be."""
        for name, entry in self.entries.items():
            if self.is_used(name):
                entry.state = ModelState.WAITING
                entry.settled.clear()
            else:
                entry.state = ModelState.UNLOADED
                entry.settled.set()

    @property
    def used(self) -> list[ModelEntry]:
        """The versions that get requests, or copies of them."""
        return [entry for name, entry in self.entries.items() if self.is_used(name)]

    @property
    def to_bring(self) -> list[ModelEntry]:
        """The versions that are loaded without being asked."""
        return [] if self.spec.is_lazy else self.used

    def choose(self, choice: VersionChoice | None) -> ModelEntry:
        """Return the version for a request: the one that it names, had before, or is to get.

        One that doesn't serve gets nothing: the others share its traffic. Where none does, it is
        the one that should.

        Raises:
            ModelVersionNotFoundError: the request names one that there isn't.

        """
        if not self.has_versions:
            return self.entry
        if choice is None:
            choice = VersionChoice()
        if choice.wanted is not None:
            if choice.wanted not in self.entries:
                raise ModelVersionNotFoundError
            return self.entries[choice.wanted]
        before = self.entries.get(choice.got.get(self.spec.name, ""))
        if before is not None and before.state_now is ModelState.READY:
            return before
        weights = [
            (name, weight)
            for name, weight in self.weights.items()
            if weight and self.entries[name].state_now is ModelState.READY
        ]
        if len(weights) > 1:
            return self.entries[choose(weights, f"{self.spec.name}\0{choice.key}")]
        return self.entries[weights[0][0]] if weights else self.entry


def model_of(spec: ModelSpec, catalog: Catalog) -> Model:
    """Return a model that isn't loaded, with the traffic as the catalogue has it."""
    is_default = catalog.default(spec.task) == spec.name
    is_required = catalog.is_required(spec)
    if not spec.versions:
        entry = ModelEntry(spec=spec, is_default=is_default, is_required=is_required)
        if spec.is_lazy:
            entry.state = ModelState.UNLOADED
            entry.settled.set()
        return Model(spec=spec, entries={ONLY: entry}, serving=ONLY, weights={ONLY: 1.0})
    weights = weights_of(spec.versions)
    serving = serving_of(weights)
    entries = {
        version.version: ModelEntry(
            spec=spec,
            is_default=is_default,
            is_required=is_required and version.version == serving,
            version=version,
            loads=loads,
        )
        for version, loads in zip(spec.versions, spec.loads, strict=True)
    }
    model = Model(spec=spec, entries=entries, serving=serving, weights=weights)
    model.plan()
    return model
