"""The torch engine: transformers classifiers of texts and tokens, and embedders, on CPU or CUDA."""

import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.engines.base import (
    Activation,
    EmbeddingOptions,
    Encoded,
    Engine,
    EngineRequest,
    FloatArray,
    Task,
    TextOrPair,
)
from app.engines.devices import here, index_of, is_cuda
from app.engines.folder.cross_encoder import ranking_activation
from app.engines.folder.heads import (
    activation_of,
    check_outputs,
    entailment_of,
    labels_of,
    needs_pairs,
    refuse_other_head,
)
from app.engines.folder.modules import Step, ends_in_unit_length, pooling_of, read_modules
from app.engines.folder.tokenizer import make_encoder
from app.engines.folder.vector_settings import read_vector_rules
from app.engines.padding import PAIR_PROBES
from app.engines.room import check_embedder
from app.engines.scores import scores
from app.engines.tokenizer import TextEncoder, read_json
from app.engines.torch_embedder import TorchEmbedder
from app.engines.torch_text import TorchText
from app.engines.torch_tokens import TorchTokenClassifier
from app.engines.vector_rules import VectorRules
from app.errors import EngineError, UnsafeModelError

# Two threads that import transformers at once can see half-initialised modules.
_IMPORT_LOCK = threading.Lock()
# Without one of these PEFT takes adapter_model.bin, a pickle, or asks the hub.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
MAX_REASON_CHARS = 300
EMBEDDING_TASKS = (Task.EMBEDDING, Task.IMAGE_EMBEDDING)
POOLER_REMEDY = '; if the model has no pooler, say pooling = "cls" or "mean" in its entry'
# Encoder-decoders whose encoder alone embeds, in sentence-transformers too.
ENCODER_ALONE = ("t5", "mt5", "umt5")
# A forward pass gives the interpreter's lock back in each of its hundreds of operations; with
# Python's 5 ms it then waits for the event loop: 7 % fewer texts a second at 64 connections.
SWITCH_INTERVAL_S = 0.001


def _libraries() -> tuple[Any, Any]:
    """Import torch and transformers, quietly and one thread at a time."""
    with _IMPORT_LOCK:
        import torch
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        # PEFT asks transformers for it by its old name; we can't change that.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is", FutureWarning)
        return torch, transformers


def transformers_library() -> Any:
    """Import transformers."""
    return _libraries()[1]


def has_cuda() -> bool:
    """Say whether torch can use a GPU here; imports it."""
    torch, _ = _libraries()
    return bool(torch.cuda.is_available())


def _choose_device(torch: Any, request: EngineRequest) -> str:
    """Return "cpu", "cuda" or "cuda:1".

    Raises:
        EngineError: a CUDA device is wanted that there isn't.

    """
    has_cuda = bool(torch.cuda.is_available())
    if not is_cuda(request.device):
        return "cuda" if has_cuda and request.device != "cpu" else "cpu"
    if not has_cuda:
        raise EngineError(f"{request.device_setting}, but torch finds no CUDA device")
    index = index_of(request.device)
    if index is not None and index >= (count := int(torch.cuda.device_count())):
        raise EngineError(f"{request.device_setting}, but for torch there are {here(count)}")
    return request.device


def _choose_dtype(torch: Any, device: str) -> Any:
    """Return float32 on a CPU; on a GPU half precision, bfloat16 where it has it."""
    if device == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _refuse_remote_code(folder: Path, transformers: Any) -> None:
    """Refuse a model that transformers knows only through code that the model brings along."""
    config = read_json(folder / "config.json")
    known = transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    if "auto_map" in config and config.get("model_type") not in known:
        raise UnsafeModelError(
            f"{folder / 'config.json'}: the model needs code of its own (auto_map), which this"
            " service never runs"
        )


def _saved_by_adapter(adapter: Path | None) -> tuple[str, ...]:
    """Return the names of modules that an adapter replaces as a whole, such as a new head."""
    if adapter is None:
        return ()
    return tuple(read_json(adapter / "adapter_config.json").get("modules_to_save") or ())


def _load_model(request: EngineRequest, auto_class: Any, dtype: Any, **config: Any) -> Any:
    """Load weights from safetensors, merge the adapter; nothing may be left at random values."""
    model, report = auto_class.from_pretrained(
        request.folder,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # refused below, with the weights' names
        **config,
    )
    _refuse_random(request, report)
    if request.adapter is not None:
        model = _merge_adapter(model, request.adapter)
    model.config.return_dict = True  # config.json may ask for tuples
    return model.eval()


def _refuse_random(request: EngineRequest, report: Mapping[str, Any]) -> None:
    """Check that every weight that is used came out of a file, the model's or the adapter's."""
    replaced = _saved_by_adapter(request.adapter)
    unfilled = {
        "the weights lack": report["missing_keys"],
        "configuration or labels don't fit the shape of": {
            key for key, *_ in report["mismatched_keys"]
        },
    }
    for what, keys in unfilled.items():
        random = sorted(key for key in keys if not key.startswith(replaced))
        # An embedder doesn't use the pooler, and many weight files come without one.
        if request.task in EMBEDDING_TASKS and not _uses_pooler(request):
            random = [key for key in random if "pooler" not in key]
        if random:
            remedy = POOLER_REMEDY if _uses_pooler(request) else ""
            raise EngineError(f"{request.folder}: {what} {', '.join(random[:5])}{remedy}")


def _uses_pooler(request: EngineRequest) -> bool:
    """Say whether vectors of images are made by the model's pooler: unless the entry says how."""
    return request.task == Task.IMAGE_EMBEDDING and not request.embedding.pooling


def _merge_adapter(model: Any, adapter: Path) -> Any:
    """Add the adapter into the weights, so that it costs nothing at run time."""
    from peft import PeftModel

    for name in ADAPTER_FILES:
        if not (adapter / name).is_file():
            raise EngineError(f"{adapter}: the adapter has no {name}")
    return PeftModel.from_pretrained(model, adapter).merge_and_unload()


class TorchClassifier(TorchText):
    """A sequence classifier, whose logits become scores as the task's own library makes them."""

    needs_pairs = False
    entailment: int | None = None

    def __init__(self, encoder: TextEncoder, *, torch: Any, model: Any, device: str) -> None:
        super().__init__(encoder, torch=torch, model=model, device=device)
        self.labels = labels_of(model.config)
        self.activation = activation_of(model.config)

    def encode(self, texts: Sequence[TextOrPair]) -> list[Encoded]:
        """Tokenise texts and pairs; what is longer than the model's window is cut and says so."""
        return list(self.encoder.encode(texts))

    @property
    def takes_pairs(self) -> bool:
        """Whether it can be given pairs of texts."""
        return self.encoder.rules.takes_pairs

    def describe_task(self, folder: Path, task: str) -> None:
        """Take over what a folder says of the task, and of pairs.

        Raises:
            EngineError: it isn't for this task, or can't be given the pairs that it needs.

        """
        config = self._model.config
        check_outputs(folder, config, task=task)
        self.needs_pairs = needs_pairs(folder, task=task)
        self.entailment = entailment_of(folder, config, task=task)
        if task == Task.RANKING:
            self.activation = ranking_activation(folder)
        elif task == Task.ZERO_SHOT:
            self.activation = Activation.LOGITS
        if self.needs_pairs and not self.takes_pairs:
            raise EngineError(
                f"{folder}: the model needs pairs of texts, and its tokenizer.json doesn't make"
                " them as transformers does, or it has no embedding for their token types"
            )

    def _probes(self) -> list[Encoded]:
        pairs = self.encode(PAIR_PROBES) if self.takes_pairs else []
        return pairs if self.needs_pairs else super()._probes() + pairs

    def classify(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return scores, (batch, labels) float32."""
        return scores(self._rows(batch), self.activation)

    def _rows(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return logits, (batch, labels) float32."""
        return self._each(batch, self._logits)

    def _logits(self, batch: Sequence[Encoded]) -> FloatArray:
        with self._torch.inference_mode():
            logits = self._model(**self._inputs(self.encoder.pad(batch))).logits.float()
            return np.asarray(logits.cpu().numpy(), dtype=np.float32)


Reference = TorchClassifier | TorchEmbedder | TorchTokenClassifier


def _label_config(request: EngineRequest) -> dict[str, Any]:
    """Return the head's configuration when the catalogue names labels."""
    if not request.labels:
        return {}
    labels = dict(enumerate(request.labels))
    return {"id2label": labels, "label2id": {label: index for index, label in labels.items()}}


def load(request: EngineRequest) -> Engine:
    """Load a classifier, of texts or tokens, or an embedder from a folder of safetensors.

    Raises:
        EngineError: the task isn't one of torch's here, the device is missing, or the weights
            don't fit the configuration or the labels.
        UnsafeModelError: the model needs remote code.

    """
    if request.folder is None or not request.folder.is_dir():
        raise EngineError("the torch engine needs a source that is a folder")
    if request.task == Task.CHAT:
        raise EngineError("the torch engine has no chat models; use an engine that has")
    torch, transformers = _libraries()
    from safetensors import SafetensorError

    torch.set_num_threads(request.threads)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    device = _choose_device(torch, request)
    dtype = _choose_dtype(torch, device)
    try:
        _refuse_remote_code(request.folder, transformers)
        kind: Callable[..., Reference]
        config: dict[str, Any] = {}
        pooling = None
        if request.task == Task.EMBEDDING:
            auto = _encoder_class(request.folder, transformers)
            steps, rules = _embedding(request.folder, request.embedding)
            kind, pooling = partial(TorchEmbedder, steps=steps, rules=rules), pooling_of(steps)
        elif request.task == Task.NER:
            known = _token_classifiers(transformers)
            refuse_other_head(request.folder, request.adapter, known, task=request.task)
            kind, config = TorchTokenClassifier, _label_config(request)
            auto = transformers.AutoModelForTokenClassification
        else:
            classifiers = _classifiers(transformers)
            refuse_other_head(request.folder, request.adapter, classifiers, task=request.task)
            kind, config = TorchClassifier, _label_config(request)
            auto = transformers.AutoModelForSequenceClassification
        model = _load_model(request, auto, dtype, **config)
        encoder = make_encoder(
            request.folder,
            model=model,
            transformers=transformers,
            limit=request.max_tokens,
            pooling=pooling,
            task=request.task,
        )
        engine = kind(encoder, torch=torch, model=model, device=device)
        if isinstance(engine, TorchEmbedder):
            check_embedder(engine, request)  # before a conversion takes minutes
        elif isinstance(engine, TorchClassifier):
            engine.describe_task(request.folder, request.task)
        engine.find_padding()
    except (OSError, ValueError, RuntimeError, LookupError, SafetensorError) as failure:
        reason = textwrap.shorten(f"{type(failure).__name__}: {failure}", MAX_REASON_CHARS)
        raise EngineError(f"{request.folder}: torch can't load this model: {reason}") from failure
    return engine


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model of transformers, with its weights, and what it runs on."""

    torch: Any
    transformers: Any
    model: Any
    device: str


def load_model(request: EngineRequest, auto_class: Callable[[Any], Any]) -> LoadedModel:
    """Load a model that isn't for texts from a folder of safetensors, its adapter merged in.

    Args:
        request: with the folder.
        auto_class: returns which class of transformers, given the library, loads it.

    Raises:
        EngineError, UnsafeModelError: as `load`, but for the task.

    """
    if request.folder is None or not request.folder.is_dir():
        raise EngineError("the torch engine needs a source that is a folder")
    torch, transformers = _libraries()
    torch.set_num_threads(request.threads)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    device = _choose_device(torch, request)
    with explained(request.folder):
        _refuse_remote_code(request.folder, transformers)
        dtype = _choose_dtype(torch, device)
        model = _load_model(request, auto_class(transformers), dtype, **_label_config(request))
    return LoadedModel(
        torch=torch, transformers=transformers, model=model.to(device), device=device
    )


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what the libraries raise at a folder that they can't load into one line.

    Raises:
        EngineError: with that line.

    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, LookupError, SafetensorError) as failure:
        reason = textwrap.shorten(f"{type(failure).__name__}: {failure}", MAX_REASON_CHARS)
        raise EngineError(f"{folder}: torch can't load this model: {reason}") from failure


def _embedding(folder: Path, options: EmbeddingOptions) -> tuple[tuple[Step, ...], VectorRules]:
    """Return the modules behind the model, and what holds for its texts and vectors."""
    steps = read_modules(folder, options)
    return steps, read_vector_rules(folder, options, is_unit=ends_in_unit_length(steps))


def _encoder_class(folder: Path, transformers: Any) -> Any:
    """Return what loads an embedder's model."""
    kind = read_json(folder / "config.json").get("model_type")
    is_half = kind in ENCODER_ALONE
    return transformers.AutoModelForTextEncoding if is_half else transformers.AutoModel


def _classifiers(transformers: Any) -> tuple[str, ...]:
    """Return the classes that classify texts."""
    mapping = transformers.models.auto.modeling_auto
    return tuple(mapping.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.values())


def _token_classifiers(transformers: Any) -> tuple[str, ...]:
    """Return the classes that label tokens."""
    mapping = transformers.models.auto.modeling_auto
    return tuple(mapping.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES.values())
