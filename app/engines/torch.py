"""The torch engine: transformers classifiers and embedders, on a CPU or on CUDA."""

import dataclasses
import sys
import textwrap
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from app.engines.base import EmbeddingOptions, Encoded, Engine, EngineRequest, FloatArray, Task
from app.engines.folder_tokenizer import make_encoder
from app.engines.heads import activation_of, labels_of, refuse_other_head
from app.engines.inputs import inputs_of
from app.engines.modules import Step, ends_in_unit_length, names_of, pooling_of, read_modules
from app.engines.padding import MOST, PROBES, choose_padding
from app.engines.pooling import make_head
from app.engines.room import check_embedder
from app.engines.scores import scores
from app.engines.tokenizer import IntArray, Padding, TextEncoder, read_json
from app.engines.vector_rules import VectorRules, edition_of
from app.engines.vector_settings import read_vector_rules
from app.errors import EngineError, UnsafeModelError

# Two threads that import transformers at once can see half-initialised modules.
_IMPORT_LOCK = threading.Lock()
# Without one of these PEFT takes adapter_model.bin, a pickle, or asks the hub.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
MAX_REASON_CHARS = 300
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
        # PEFT asks transformers for it by its old name; nobody here can do anything about that.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is", FutureWarning)
        return torch, transformers


def has_cuda() -> bool:
    """Say whether torch can use a GPU here; imports it."""
    torch, _ = _libraries()
    return bool(torch.cuda.is_available())


def _choose_device(torch: Any, wanted: str) -> str:
    """Return "cuda" or "cpu".

    Raises:
        EngineError: CUDA is wanted and there is none.

    """
    has_cuda = bool(torch.cuda.is_available())
    if wanted == "cuda" and not has_cuda:
        raise EngineError("DEVICE=cuda, but torch finds no CUDA device")
    return "cuda" if has_cuda and wanted != "cpu" else "cpu"


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
        ignore_mismatched_sizes=True,  # refused below, in words that name the weights
        **config,
    )
    _refuse_random(request, report)
    if request.adapter is not None:
        model = _merge_adapter(model, request.adapter)
    model.config.return_dict = True  # config.json may ask for tuples
    return model.eval()


def _refuse_random(request: EngineRequest, report: Mapping[str, Any]) -> None:
    """See that every weight that is used came out of a file, the model's or the adapter's."""
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
        if request.task is Task.EMBEDDING:
            random = [key for key in random if "pooler" not in key]
        if random:
            raise EngineError(f"{request.folder}: {what} {', '.join(random[:5])}")


def _merge_adapter(model: Any, adapter: Path) -> Any:
    """Add the adapter into the weights, so that it costs nothing at run time."""
    from peft import PeftModel

    for name in ADAPTER_FILES:
        if not (adapter / name).is_file():
            raise EngineError(f"{adapter}: the adapter has no {name}")
    return PeftModel.from_pretrained(model, adapter).merge_and_unload()


class _TorchText(ABC):
    """What the classifier and the embedder share: tokeniser, device, forward."""

    kind = "torch"

    def __init__(self, encoder: TextEncoder, *, torch: Any, model: Any, device: str) -> None:
        self.device = device
        self.encoder = encoder
        self.max_tokens = encoder.max_tokens
        self._torch = torch
        self._model = model.to(device)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokenise; a text longer than the model's window is cut and says so."""
        return self.encoder.encode(texts)

    @abstractmethod
    def _rows(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return what the model itself says of each text, (batch, columns) float32."""

    @property
    def module(self) -> Any:
        """The torch module with the adapter merged in, for conversion."""
        return self._model

    def close(self) -> None:
        """Drop the weights."""
        self._model = None
        self._torch.cuda.empty_cache()  # does nothing where CUDA isn't used

    def settle(self) -> None:
        """Find out how texts can share a call.

        Raises:
            EngineError: the model answers a text now so, now so, or not in numbers.

        """

        def run(items: Sequence[Encoded], padding: Padding) -> FloatArray:
            self.encoder.rules = dataclasses.replace(self.encoder.rules, padding=padding)
            return self._rows(items)

        most = MOST["float32" if self._model.dtype is self._torch.float32 else "half"]
        first = self.encoder.rules.padding
        run_first = choose_padding(run, self.encode(PROBES), most=most, first=first)
        self.encoder.rules = dataclasses.replace(self.encoder.rules, padding=run_first)

    def _each(
        self, batch: Sequence[Encoded], run: Callable[[Sequence[Encoded]], FloatArray]
    ) -> FloatArray:
        """Run a batch in one call, or text by text where the model can't be given padding."""
        if self.encoder.rules.padding is Padding.NONE:
            return np.concatenate([run([item]) for item in batch])
        return run(batch)

    def _inputs(self, arrays: Mapping[str, IntArray]) -> dict[str, Any]:
        """Return what `forward` takes of a padded batch, and what else it does, on the device."""
        inputs = inputs_of(self._torch, self._model, self.encoder.rules, arrays)
        is_tensor = self._torch.is_tensor
        return {name: a.to(self.device) if is_tensor(a) else a for name, a in inputs.items()}


class TorchClassifier(_TorchText):
    """A sequence classifier, whose logits become scores as in transformers' pipeline."""

    def __init__(self, encoder: TextEncoder, *, torch: Any, model: Any, device: str) -> None:
        super().__init__(encoder, torch=torch, model=model, device=device)
        self.labels = labels_of(model.config)
        self.activation = activation_of(model.config)

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


class TorchEmbedder(_TorchText):
    """An encoder and the modules behind it, as sentence-transformers models are used.

    Args:
        encoder, torch, model, device: as of a classifier.
        steps: what follows the model, of `read_modules`.
        rules: the model's, of `read_vector_rules`.

    """

    def __init__(  # as a classifier, and the steps
        self,
        encoder: TextEncoder,
        *,
        torch: Any,
        model: Any,
        device: str,
        steps: Sequence[Step],
        rules: VectorRules,
    ) -> None:
        super().__init__(encoder, torch=torch, model=model, device=device)
        self.head = make_head(torch, steps, width=int(model.config.hidden_size)).to(device)
        self.dimensions = int(self.head.dimensions)
        self.passage_tokens = encoder.passage_tokens
        edition = edition_of(
            rules,
            width=self.dimensions,
            steps=names_of(steps),
            leaves_prompt_out=encoder.rules.leaves_prompt_out,
            lowers_case=encoder.rules.lowers_case,
        )
        self.vector_rules = dataclasses.replace(rules, edition=edition)

    def encode(self, texts: Sequence[str], prompt: str = "") -> list[Encoded]:
        """Tokenise texts with a prompt before each; too long a text is cut and says so."""
        return self.encoder.encode(texts, prompt)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the place of each token in a text of any length."""
        return self.encoder.offsets(text)

    def embed(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return vectors, (batch, dimensions) float32; of length 1 if the model's own are."""
        return self._each(batch, self._embed)

    def _rows(self, batch: Sequence[Encoded]) -> FloatArray:
        return self.embed(batch)

    def _embed(self, batch: Sequence[Encoded]) -> FloatArray:
        arrays = self.encoder.pad(batch)
        # Pooling needs the mask, whether the model takes it or not; and its own where prompts
        # are left out.
        mask = self._torch.from_numpy(arrays["attention_mask"]).to(self.device)
        own = arrays.get("pooling_mask")
        pooled = mask if own is None else self._torch.from_numpy(own).to(self.device)
        with self._torch.inference_mode():
            hidden = self._model(**self._inputs(arrays)).last_hidden_state.float()
            vectors = self.head(hidden, mask, pooled)
            if self.vector_rules.is_unit:
                vectors = self._torch.nn.functional.normalize(vectors, dim=-1)
            return np.asarray(vectors.cpu().numpy(), dtype=np.float32)


def _label_config(request: EngineRequest) -> dict[str, Any]:
    """Return the head's configuration when the catalogue names labels."""
    if not request.labels:
        return {}
    named = dict(enumerate(request.labels))
    return {"id2label": named, "label2id": {label: index for index, label in named.items()}}


def load(request: EngineRequest) -> Engine:
    """Load a classifier or an embedder from a folder of safetensors.

    Raises:
        EngineError: the task isn't one of torch's here, the device is missing, or the weights
            don't fit the configuration or the labels.
        UnsafeModelError: the model needs remote code.

    """
    if request.folder is None or not request.folder.is_dir():
        raise EngineError("the torch engine needs a source that is a folder")
    if request.task is Task.CHAT:
        raise EngineError("the torch engine has no chat models; use an engine that has")
    torch, transformers = _libraries()
    from safetensors import SafetensorError

    torch.set_num_threads(request.threads)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    device = _choose_device(torch, request.device)
    dtype = _choose_dtype(torch, device)
    try:
        _refuse_remote_code(request.folder, transformers)
        kind: Callable[..., TorchClassifier | TorchEmbedder]
        config: dict[str, Any] = {}
        pooling = None
        if request.task is Task.EMBEDDING:
            auto = _encoder_class(request.folder, transformers)
            steps, rules = _embedding(request.folder, request.embedding)
            kind, pooling = partial(TorchEmbedder, steps=steps, rules=rules), pooling_of(steps)
        else:
            refuse_other_head(request.folder, request.adapter, _classifiers(transformers))
            kind, config = TorchClassifier, _label_config(request)
            auto = transformers.AutoModelForSequenceClassification
        model = _load_model(request, auto, dtype, **config)
        encoder = make_encoder(
            request.folder,
            model=model,
            transformers=transformers,
            limit=request.max_tokens,
            pooling=pooling,
        )
        engine = kind(encoder, torch=torch, model=model, device=device)
        if isinstance(engine, TorchEmbedder):
            check_embedder(engine, request)  # before a conversion takes minutes
        engine.settle()
    except (OSError, ValueError, RuntimeError, LookupError, SafetensorError) as failure:
        said = textwrap.shorten(f"{type(failure).__name__}: {failure}", MAX_REASON_CHARS)
        raise EngineError(f"{request.folder}: torch can't load this model: {said}") from failure
    return engine


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
