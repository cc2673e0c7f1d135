"""The models of a catalogue, by their names: which there are, and whether they serve."""

from app.errors import ModelNotFoundError
from app.models.catalog import Catalog, ModelSpec
from app.models.entries import ModelEntry, ModelState
from app.models.versions import Model, model_of


class ModelTable:
    """Finds models. Use it on the event loop only.

    Args:
        catalog: names them.

    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._models = {spec.name: model_of(spec, catalog) for spec in catalog.specs}

    @property
    def catalog(self) -> Catalog:
        """What the models were made of."""
        return self._catalog

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """Of every model the version that serves, in the order of the catalogue."""
        return tuple(model.entry for model in self._models.values())

    @property
    def all_entries(self) -> tuple[ModelEntry, ...]:
        """All versions of all models."""
        return tuple(one for model in self._models.values() for one in model.entries.values())

    @property
    def models(self) -> tuple[Model, ...]:
        """Every model with its versions."""
        return tuple(self._models.values())

    @property
    def is_ready(self) -> bool:
        """Whether every required model serves, and one at all."""
        return self.serves and not any(entry.is_blocking for entry in self.entries)

    @property
    def serves(self) -> bool:
        """Whether any model serves, or will when it is asked."""
        return any(
            entry.is_asleep or entry.state_now is ModelState.READY for entry in self.all_entries
        )

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lent."""
        return not any(entry.leases for entry in self.all_entries)

    @property
    def awaited(self) -> tuple[ModelEntry, ...]:
        """The models that `/ready` waits for: the required ones, or all if there are none."""
        blocking = tuple(entry for entry in self.entries if entry.is_blocking)
        if blocking or self.serves:
            return blocking
        return tuple(entry for entry in self.entries if entry.is_loading)

    def spec(self, name: str | None, task: str) -> ModelSpec | None:
        """Return the entry of the model that `lease` would lend, whether it serves or not."""
        spec = self._catalog.get(name or self._catalog.default(task) or "")
        return spec if spec is not None and spec.task == task else None

    def task_of(self, name: str) -> str:
        """Return the task of a model of the catalogue, whether it serves or not.

        Raises:
            ModelNotFoundError: there is none of that name.

        """
        return self.model(name).spec.task

    def model(self, name: str) -> Model:
        """Return a model of the catalogue; raises as `task_of`."""
        if name not in self._models:
            raise ModelNotFoundError
        return self._models[name]

    def for_task(self, name: str | None, task: str) -> Model:
        """Return the model that `lease` would lend; raises as `task_of`."""
        spec = self.spec(name, task)
        if spec is None:
            raise ModelNotFoundError
        return self._models[spec.name]

    def find(self, name: str) -> Model | None:
        """Return a model of the catalogue, where there is one of that name."""
        return self._models.get(name)

    def entry(self, name: str) -> ModelEntry | None:
        """Return the version that serves of a model, where there is one of that name."""
        model = self.find(name)
        return model.entry if model is not None else None

    def put(self, model: Model) -> None:
        """Add a model, or put it in the place of the one of its name."""
        self._models[model.spec.name] = model

    def take_out(self, name: str) -> None:
        """Forget a model."""
        del self._models[name]

    def adopt(self, catalog: Catalog) -> None:
        """Let another catalogue say which models there are; each has been put, or was there."""
        self._catalog = catalog
        self._models = {spec.name: self._models[spec.name] for spec in catalog.specs}
