"""What an entry of models.toml may say: its fields, and which of them suit its task and engine."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from app.engines.base import HUB_NAMES, EmbeddingOptions, Task
from app.models.rollback_rule import RollbackRule
from app.models.version_specs import Sha256, VersionSpec, check_versions

DEFAULT_MAX_CHARS = 2_000
WINDOWED_MAX_CHARS = 20_000  # where a long text runs in windows instead of being cut
REMOTE = "remote"  # the engine of models that another server runs
PYTHON = "python"  # the engine of a class of the operator's
ONNX = "onnx"  # the engine of a graph in a file
# Their models have requests of their own: what one is called for, its entry doesn't say.
OWN_TYPES = {
    PYTHON: (
        "the class says what its requests and answers are",
        '"python:package.module:Class" or "file:model.py:Class"',
    ),
    ONNX: ("the graph says what its requests and answers are", '"file:model.onnx" or its folder'),
}
# Of a Python class: how it can be kept apart from the service.
ISOLATIONS = ("process", "thread")
# The fields that only its entry may have.
PYTHON_FIELDS = ("isolation", "workers", "uses")


# The fields that only an embedder's entry may have, with their defaults.
EMBEDDING_DEFAULTS: dict[str, Any] = asdict(EmbeddingOptions())
IMAGE_EMBEDDING_FIELDS = ("pooling", "normalize")  # of these, for vectors of images too
PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


def _several(value: object) -> object:
    """Turn one name into a list of one."""
    return (value,) if isinstance(value, str) else value


def _own_name(task: object) -> object:
    """Turn the Hub's name of a task into the one that this service has for it."""
    return HUB_NAMES.get(task, task) if isinstance(task, str) else task


TaskName = Annotated[str, BeforeValidator(_own_name), Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")]


def readable(invalid: ValidationError) -> str:
    """Return what is wrong with an entry, in a line."""
    return "; ".join(
        f"{'.'.join(map(str, error['loc'])) or 'entry'}: {error['msg']}"
        for error in invalid.errors(include_url=False)
    )


class Limits(BaseModel):
    """Bounds of one model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_chars: int = Field(DEFAULT_MAX_CHARS, gt=0)  # of a text to classify; longer ones get 422
    max_tokens: int | None = Field(None, gt=0)  # longer texts are cut; None: the model's window
    max_batch: int | None = Field(None, gt=0)  # texts in one engine call; None: by device
    max_batch_tokens: int = Field(16_384, gt=0)  # of one engine call: longest text times texts


class ModelSpec(BaseModel):
    """One entry of the catalogue; `docs/models.md` explains each field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    task: TaskName = Task.CLASSIFICATION.value
    source: str | None = None
    adapter: str | None = None
    engine: str = "auto"
    default: bool = False
    required: bool | None = None  # None: as `Catalog.is_required` says
    labels: tuple[str, ...] = ()
    limits: Limits = Limits()
    device: str | None = None  # where it computes; None: as the setting DEVICE says
    # Embedders: these four say what their folder doesn't.
    pooling: Annotated[tuple[PoolingMode, ...], BeforeValidator(_several)] = ()
    normalize: bool | None = None
    prompts: Mapping[str, str] = {}
    dimensions: int | None = Field(None, gt=0)
    sha256: Mapping[str, Sha256] | Sha256 | None = None
    packed: bool = True  # OpenVINO: texts may run in rows, one behind the other
    fake: Mapping[str, Any] = {}
    slots: int = Field(8, gt=0)  # chat: generations at once
    waiting: int = Field(16, ge=0)  # chat: generations that may wait for a slot
    context_tokens: int = Field(2048, gt=0)  # chat: of each generation, prompt and answer
    system_prompt: str | None = None  # chat: for conversations that bring none
    temperature: float | None = Field(None, ge=0, le=2)  # chat: for requests that bring none
    base_url: str | None = None  # engine "remote"
    api_key_env: str | None = None  # engine "remote": the variable that holds its key
    # engine "remote": silence after which it is given up; "python": a call, in a process.
    timeout_s: float = Field(60, gt=0)
    # engine "remote": whether its server gets fields that this service doesn't know
    pass_fields: bool = True
    isolation: str | None = None  # engine "python": where the class runs; None: by the device
    workers: int = Field(1, gt=0, le=64)  # engine "python": calls of the class at once
    uses: Annotated[
        tuple[str, ...], BeforeValidator(_several)
    ] = ()  # engine "python": models that it calls
    load: Literal["start", "lazy"] = "start"  # lazy: when it is first asked
    idle_unload_s: float | None = Field(None, gt=0)  # lazy: after which it goes; None: never
    rollback: RollbackRule | None = None  # None: an operator takes versions back
    versions: tuple[VersionSpec, ...] = ()  # none: the entry itself is the only one

    @model_validator(mode="before")
    @classmethod
    def a_class_has_a_task_of_its_own(cls, entry: Any) -> Any:  # noqa: ANN401  # TOML
        """Give a Python class, or a graph, its task: what it does only itself says."""
        if isinstance(entry, dict) and entry.get("engine") in list(OWN_TYPES):  # unhashable, maybe
            return {"task": Task.PYTHON.value, **entry}
        return entry

    @model_validator(mode="before")
    @classmethod
    def long_texts_run_in_windows(cls, entry: Any) -> Any:  # noqa: ANN401  # TOML
        """Allow longer texts to a token classifier, whose entry doesn't say how long."""
        is_one = isinstance(entry, dict) and entry.get("task") == Task.NER
        limits = entry.get("limits", {}) if is_one else None
        if isinstance(limits, dict) and "max_chars" not in limits:
            return {**entry, "limits": {"max_chars": WINDOWED_MAX_CHARS, **limits}}
        return entry

    @field_validator("labels")
    @classmethod
    def labels_differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse two labels of one name: an answer couldn't tell them apart."""
        if len(set(labels)) != len(labels):
            raise ValueError("labels must differ")
        return labels

    @model_validator(mode="after")
    def settings_have_their_task(self) -> Self:
        """Refuse fields of embedders in other entries, where they would do nothing."""
        for name in EMBEDDING_DEFAULTS:
            if name not in self.model_fields_set or self.task == Task.EMBEDDING:
                continue
            if name not in IMAGE_EMBEDDING_FIELDS:
                raise ValueError(f"{name} is for models of the task embedding")
            if self.task != Task.IMAGE_EMBEDDING:
                raise ValueError(f"{name} is for models of the task embedding or image-embedding")
        return self

    @model_validator(mode="after")
    def settings_have_their_engine(self) -> Self:
        """Refuse fields of Python classes in other entries, and what a class's entry can't say."""
        if self.engine != PYTHON and (
            n := [n for n in PYTHON_FIELDS if n in self.model_fields_set]
        ):
            raise ValueError(f'{n[0]} is for models of the engine "python"')
        if self.engine == REMOTE and self.device is not None:
            raise ValueError('device has no meaning for the engine "remote": a server computes')
        if self.engine not in OWN_TYPES:
            return self
        types, sources = OWN_TYPES[self.engine]
        if self.task != Task.PYTHON:
            raise ValueError(
                f'the engine "{self.engine}" has a task of its own: leave task out; {types}'
            )
        if self.default:
            thing = "a Python class" if self.engine == PYTHON else "a graph"
            raise ValueError(f"default has no meaning for {thing}: requests name it")
        if self.adapter is not None:
            raise ValueError(f'adapter has no meaning for the engine "{self.engine}"')
        if self.source is None and not self.versions:
            raise ValueError(f"source is missing: {sources}")
        return self

    @model_validator(mode="after")
    def lazy_can_wait(self) -> Self:
        """Refuse what contradicts a load on demand."""
        if not self.is_lazy and self.idle_unload_s is not None:
            raise ValueError('idle_unload_s is for models of load = "lazy"')
        if self.is_lazy and self.required:
            raise ValueError('a model of load = "lazy" can\'t be required: nothing waits for it')
        if self.is_lazy and self.versions:
            raise ValueError('load = "lazy" has no meaning for a model with versions')
        return self

    @model_validator(mode="after")
    def versions_can_serve(self) -> Self:
        """Refuse versions that can't be told apart, and fields that one can't have."""
        if self.rollback is not None and not self.versions:
            raise ValueError("rollback: there are no versions to take back")
        try:
            check_versions(self.versions, task=self.task, is_remote=self.engine == REMOTE)
            for one in self.versions:
                self.of_version(one)
        except ValidationError as invalid:
            raise ValueError(f"versions: {one.version!r}: {readable(invalid)}") from None
        except ValueError as invalid:
            raise ValueError(f"versions: {invalid}") from None
        return self

    @field_validator("isolation")
    @classmethod
    def isolation_is_there(cls, isolation: str | None) -> str | None:
        """Refuse a way to isolate a class that there isn't."""
        if isolation is not None and isolation not in ISOLATIONS:
            works = " and ".join(f'"{name}"' for name in ISOLATIONS)
            raise ValueError(f'there is no "{isolation}"; there are {works}')
        return isolation

    def of_version(self, version: VersionSpec) -> "ModelSpec":
        """Return the entry that loads a version: this one, with what the version says itself.

        Its name tells it from the others, in metrics and in the log: `sentiment@2`.
        """
        own = self.model_dump(exclude_unset=True, exclude={"versions", "rollback"})
        merged = ModelSpec.model_validate(version.over(own))
        return merged.model_copy(update={"name": f"{self.name}@{version.version}"})

    @property
    def is_lazy(self) -> bool:
        """Whether it is loaded when it is first asked."""
        return self.load == "lazy"

    @property
    def loads(self) -> "tuple[ModelSpec, ...]":
        """Return the entries to load: one for each version, or this one where it has none."""
        return tuple(map(self.of_version, self.versions)) or (self,)

    @property
    def embedding(self) -> EmbeddingOptions:
        """What the entry says of an embedder."""
        return EmbeddingOptions(**{name: getattr(self, name) for name in EMBEDDING_DEFAULTS})

    @property
    def pins(self) -> Mapping[str, str]:
        """Return file name → sha256; the name "" stands for a source that is one file."""
        if self.sha256 is None:
            return {}
        return {"": self.sha256} if isinstance(self.sha256, str) else self.sha256
