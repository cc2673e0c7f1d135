"""Loads one model of the catalogue: its files, its engine, and a first call."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.engines.base import (
    Embedder,
    Engine,
    EngineRequest,
    ImageOptions,
    OnStep,
    OpenVinoOptions,
    PythonOptions,
    Task,
    TextEngine,
    ignore_step,
)
from app.engines.chat_base import ChatEngine, ChatOptions
from app.engines.loader import EngineTable
from app.engines.python.models import CallModel
from app.engines.room import check_embedder
from app.engines.rows import checked
from app.errors import EngineError, ServiceError, SourceError
from app.models.catalog import REMOTE, ModelSpec
from app.models.sources import Resolved, Sources
from app.models.verify import verify

# One short and one longer text, as engines prepare for lengths.
WARM_TEXTS = ("warm up", "a longer text, so that the engine has met more than one length " * 8)
ReadSecret = Callable[[str], str | None]
NO_FILES = Resolved(path=Path(), version="none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A warm engine, and the version of its files."""

    engine: Engine
    version: str


class ModelLoader:
    """Turns a catalogue entry into a warm engine; blocks, for use in a thread.

    Args:
        sources: resolves the entry's source.
        folder: the catalogue's folder; relative paths start there.
        device: "auto", "cpu" or "cuda", of models whose entry names none.
        threads: processor threads that one call of torch may use.
        openvino: where and how models are converted; None leaves them to torch.
        read_secret: returns the secret that an environment variable holds.
        engines: to choose from; None: those that are known.
        shows_output: whether the log has what Python classes print.
        call_timeout_s: that a call of a class in a process may take, unless its entry says so.
        hidden: variables of the environment that processes of classes don't get.
        images: how large they may be, and how many are worked on at once.
        call_model: returns what carries a class's calls of other models; None: it has none.

    """

    def __init__(  # noqa: PLR0913  # each comes from another setting
        self,
        sources: Sources,
        *,
        folder: Path,
        device: str,
        threads: int,
        openvino: OpenVinoOptions | None = None,
        read_secret: ReadSecret = lambda _: None,
        engines: EngineTable | None = None,
        shows_output: bool = False,
        call_timeout_s: float = 30.0,
        hidden: frozenset[str] = frozenset(),
        images: ImageOptions | None = None,
        call_model: Callable[[ModelSpec], CallModel] | None = None,
    ) -> None:
        self._sources = sources
        self._folder = folder
        self._device = device
        self._threads = threads
        self._openvino = openvino
        self._read_secret = read_secret
        self._engines = engines or EngineTable()
        self._shows_output = shows_output
        self._call_timeout_s = call_timeout_s
        self._hidden = hidden
        self._images = images or ImageOptions()
        self._call_model = call_model

    def __call__(self, spec: ModelSpec, *, on_step: OnStep = ignore_step) -> Loaded:
        """Load and warm an engine, and report each step of the preparation.

        Raises:
            StartupError: of the kind that says what is wrong; the message is for the operator.

        """
        request, version = self.request(spec, on_step=on_step)
        engine = self._engines.load(request)
        try:
            if isinstance(engine, Embedder):
                check_embedder(engine, request)
            warm(engine)
        except EngineError:
            engine.close()
            raise
        return Loaded(engine=engine, version=getattr(engine, "version", version))

    def request(
        self, spec: ModelSpec, *, on_step: OnStep = ignore_step
    ) -> tuple[EngineRequest, str]:
        """Resolve the entry's files; return the request to an engine, and their version.

        Raises:
            StartupError: of the kind that says what is wrong with the source or the adapter.

        """
        resolved = self._resolve(spec)
        task = self._engines.capability(spec.task)
        request = EngineRequest(
            name=spec.name,
            task=task,
            engine=spec.engine,
            folder=None if resolved is NO_FILES else resolved.path,
            adapter=self._adapter(spec),
            labels=spec.labels,
            max_tokens=spec.limits.max_tokens,
            device=spec.device or self._device,
            is_own_device=spec.device is not None,
            threads=self._threads,
            options=spec.fake,
            openvino=self._openvino,
            chat=self._chat(spec) if task == Task.CHAT or spec.engine == REMOTE else None,
            python=self._python(spec) if task == Task.PYTHON else None,
            call_model=self._call_model(spec) if spec.uses and self._call_model else None,
            embedding=spec.embedding,
            images=self._images,
            is_packed=spec.packed,
            on_step=on_step,
        )
        return request, resolved.version

    def _resolve(self, spec: ModelSpec) -> Resolved:
        if not self._engines.has_files(spec.engine):
            return NO_FILES
        if spec.source is None:
            raise SourceError("the entry names no source")
        return self._sources.resolve(spec.source, base=self._folder, pins=spec.pins)

    def _chat(self, spec: ModelSpec) -> ChatOptions:
        return ChatOptions(
            slots=spec.slots,
            context_tokens=spec.context_tokens,
            cores=self._openvino.cores if self._openvino else self._threads,
            source=spec.source or "",
            base_url=spec.base_url,
            timeout_s=spec.timeout_s,
            pass_fields=spec.pass_fields,
            api_key=self._key(spec.api_key_env) if spec.api_key_env else None,
        )

    def _python(self, spec: ModelSpec) -> PythonOptions:
        return PythonOptions(
            source=spec.source or "",
            base=self._folder,
            pins=spec.pins,
            workers=spec.workers,
            shows_output=self._shows_output,
            isolation=spec.isolation or "",
            timeout_s=spec.timeout_s
            if "timeout_s" in spec.model_fields_set
            else self._call_timeout_s,
            streams=spec.slots,
            hidden=self._hidden,
            uses=spec.uses,
        )

    def _key(self, variable: str) -> str:
        if key := self._read_secret(variable):
            return key
        raise EngineError(f"the environment variable {variable} (api_key_env) is not set")

    def _adapter(self, spec: ModelSpec) -> Path | None:
        """Return the adapter's folder, checked as strictly as the model's."""
        if spec.adapter is None:
            return None
        path = self._folder / spec.adapter
        if not path.is_dir():
            raise SourceError(f"adapter: there is no folder {path}")
        verify(path, {})
        return path


def warm(engine: Engine) -> None:
    """Run an engine once, so that the first request doesn't wait for lazy initialisation.

    Raises:
        EngineError: the engine loads, but can't run, or returns unusable rows.

    """
    if engine.kind == REMOTE:
        return  # it may charge money
    try:
        if isinstance(engine, TextEngine):
            checked(engine)(engine.encode(WARM_TEXTS))
        elif isinstance(engine, ChatEngine):
            # The template's own tokens are enough, and fit into any context.
            engine.chat_model.invoke("", max_tokens=1)
    except (ServiceError, RuntimeError, ValueError, LookupError, MemoryError) as failure:
        raise EngineError(
            f"the first call failed: {type(failure).__name__}: {failure}"
        ) from failure
