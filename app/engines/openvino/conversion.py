"""Converts a torch model for OpenVINO, once, into a folder whose name says what it was made of."""

import hashlib
import importlib.metadata
import inspect
import json
import logging
import shutil
import textwrap
import uuid
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from app.engines.base import Activation, EmbeddingOptions, EngineRequest, OpenVinoOptions
from app.engines.folder.module_list import module_files
from app.engines.openvino.processor import openvino_library
from app.engines.tokenizer import Padding, TextRules
from app.engines.torch import ADAPTER_FILES, MAX_REASON_CHARS, TorchClassifier
from app.engines.torch_embedder import TorchEmbedder
from app.engines.vector_rules import Similarity, VectorRules
from app.errors import EngineError

# Raise it when what is saved changes: folders of an older format are then left alone.
FORMAT = 4
# What has a say in the graph; their versions are part of the folder's name.
LIBRARIES = ("openvino", "torch", "transformers", "peft", "tokenizers")
# What transformers reads; a changed README makes no other model.
READ_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".spm", ".tiktoken")
GRAPH, WEIGHTS, TOKENIZER, DESCRIPTION = "model.xml", "model.bin", "tokenizer.json", "model.json"
# Two rows of different length: a traced graph must not learn that all rows are full.
EXAMPLES = ("A film that stays with you for days.", "fine")
CHUNK_BYTES = 1 << 20
MATRIX = 2


class ConversionError(EngineError):
    """OpenVINO can't convert or run this model; torch may still be able to."""

    is_lasting = True  # the same files, libraries and settings would fail again


class InterruptedConversionError(ConversionError):
    """The conversion failed for what may be over by the next start, such as a full disk."""

    is_lasting = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A converted model, and what serving it takes beside the graph."""

    folder: Path
    rules: TextRules
    labels: tuple[str, ...] = ()
    activation: Activation = Activation.NONE
    dimensions: int = 0
    vector_rules: VectorRules = field(default_factory=VectorRules)

    @property
    def graph(self) -> Path:
        """The graph in OpenVINO's own format; the weights lie beside it."""
        return self.folder / GRAPH

    @property
    def weights(self) -> Path:
        """The weights, in float32."""
        return self.folder / WEIGHTS

    @property
    def tokenizer(self) -> Path:
        """The tokeniser, in the format of the tokenizers library."""
        return self.folder / TOKENIZER


def options_of(request: EngineRequest) -> OpenVinoOptions:
    """Return the request's options.

    Raises:
        EngineError: there are none, so that there is no folder to convert into.

    """
    if request.openvino is None:
        raise EngineError("the OpenVINO engine needs a folder for converted models")
    return request.openvino


def folder_of(request: EngineRequest) -> Path:
    """Return where this very model lies once it is converted.

    The name holds a digest of the weights, the adapter, the labels and the libraries' versions.
    """
    digest = hashlib.sha256(repr((FORMAT, request.task, request.labels)).encode())
    if request.embedding != EmbeddingOptions():
        digest.update(repr(request.embedding).encode())
    for library in LIBRARIES:
        digest.update(f"{library}=={_version(library)}\n".encode())
    for file in _files(request):
        digest.update(f"{file.name} {_fingerprint(file)}\n".encode())
    return options_of(request).cache / f"{request.name}-{digest.hexdigest()[:16]}"


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _files(request: EngineRequest) -> Iterator[Path]:
    """Yield the files that make the model, in a fixed order."""
    if request.folder is None or not request.folder.is_dir():
        raise EngineError("the OpenVINO engine needs a source that is a folder")
    yield from sorted(f for f in request.folder.iterdir() if f.suffix in READ_SUFFIXES)
    yield from module_files(request.folder)
    if request.adapter is not None:
        # Beside them an adapter has its card, and perhaps a calibration set.
        yield from (f for name in ADAPTER_FILES if (f := request.adapter / name).is_file())


def _fingerprint(file: Path) -> str:
    """Return a file's size and CRC: quick, as each start does it, and enough against accidents.

    What holds against malice are the pins of the catalogue.
    """
    crc = size = 0
    with file.open("rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
            size += len(chunk)
    return f"{size}-{crc:08x}"


def read(folder: Path) -> Converted | None:
    """Return the converted model of a folder; None if there is none, or not as it was written."""
    try:
        said = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        whole = all(_fingerprint(folder / name) == digest for name, digest in said["files"].items())
        labels = tuple(said.pop("labels"))
        rules = said.pop("rules")
        rules = TextRules(
            **rules
            | {"padding": Padding(rules["padding"]), "special_ids": tuple(rules["special_ids"])}
        )
        vectors = said.pop("vector_rules")
        vectors = VectorRules(**vectors | {"similarity": Similarity(vectors["similarity"])})
        activation = Activation(said.pop("activation"))
        del said["files"]
        found = Converted(
            folder=folder,
            labels=labels,
            rules=rules,
            activation=activation,
            vector_rules=vectors,
            **said,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if whole else None


def convert(reference: TorchClassifier | TorchEmbedder, folder: Path) -> Converted:
    """Convert a loaded model and save it, all at once or not at all.

    Call it with the cache's lock held: what another conversion of the same model has left
    half-written is removed.

    Raises:
        ConversionError: OpenVINO can't convert the model, or the folder can't be written.

    """
    try:
        for leftover in folder.parent.glob(f".{folder.name}-*"):
            shutil.rmtree(leftover)
        fresh = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
        fresh.mkdir(parents=True)
        with _log_level_kept():
            converted = _save(reference, fresh)
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    except OSError as failure:
        raise InterruptedConversionError(f"{type(failure).__name__}: {failure}") from failure
    except Exception as failure:  # OpenVINO's tracer has exceptions of its own, and models any
        said = textwrap.shorten(f"{type(failure).__name__}: {failure}", MAX_REASON_CHARS)
        raise ConversionError(said) from failure
    return replace(converted, folder=folder)


@contextmanager
def _log_level_kept() -> Iterator[None]:
    """Undo what OpenVINO's converter does: it lets the whole process log errors only."""
    root = logging.getLogger()
    level = root.level
    try:
        yield
    finally:
        root.setLevel(level)


def _save(reference: TorchClassifier | TorchEmbedder, folder: Path) -> Converted:
    """Write graph, weights, tokeniser and, last, their description with a fingerprint of each."""
    openvino = openvino_library()
    graph = _graph(openvino, reference)
    _halve_embeddings(openvino, graph)
    # The rest in full precision: half would be held in memory once more, as float32, where this
    # is mapped from the file.
    openvino.save_model(graph, folder / GRAPH, compress_to_fp16=False)
    reference.encoder.save(folder / TOKENIZER)
    converted = Converted(folder=folder, rules=reference.encoder.rules)
    if isinstance(reference, TorchClassifier):
        converted = replace(converted, labels=reference.labels, activation=reference.activation)
    else:
        dimensions, vectors = reference.dimensions, reference.vector_rules
        converted = replace(converted, dimensions=dimensions, vector_rules=vectors)
    said = asdict(converted)
    del said["folder"]
    said["files"] = {name: _fingerprint(folder / name) for name in (GRAPH, WEIGHTS, TOKENIZER)}
    (folder / DESCRIPTION).write_text(json.dumps(said), encoding="utf-8")
    return converted


def _graph(openvino: Any, reference: TorchClassifier | TorchEmbedder) -> Any:
    """Trace the model: token ids, mask, perhaps types in, logits or vectors out.

    Softmax and scaling to length 1 stay outside, in float32: in bfloat16 probabilities would no
    longer sum to 1.
    """
    import torch

    encoder = reference.encoder
    # A model that can't be given padding may not be given a second row either.
    texts = EXAMPLES[:1] if encoder.rules.padding is Padding.NONE else EXAMPLES
    example = encoder.pad(encoder.encode(texts))
    with warnings.catch_warnings():
        # OpenVINO traces with torch.jit, which torch deprecates; the graph is held against torch
        # afterwards, so that what the tracer warns of would show.
        warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return openvino.convert_model(
            _traceable(torch, reference),
            example_input={name: torch.from_numpy(array) for name, array in example.items()},
        )


def _halve_embeddings(openvino: Any, graph: Any) -> None:
    """Store look-up tables in half precision; a row becomes float32 when it is looked up.

    Traffic touches most rows in time, so the table is what grows in a process that serves.
    """
    for node in graph.get_ops():
        table = node.input_value(0).get_node() if node.get_type_name() == "Gather" else None
        if table is None or table.get_type_name() != "Constant" or len(table.shape) != MATRIX:
            continue
        if table.get_element_type() != openvino.Type.f32 or len(table.output(0).target_inputs) > 1:
            continue  # shared with a layer that computes with it
        half = openvino.opset13.constant(table.data.astype("float16"))
        row = openvino.opset13.convert(half, "f32")
        row.rt_info["decompression_0"] = ""  # keeps the compiler from undoing it
        node.input(0).replace_source_output(row.output(0))


def _traceable(torch: Any, reference: TorchClassifier | TorchEmbedder) -> Any:
    """Wrap a model so that it takes two tensors, or three with token types, and gives one."""
    model, rules = reference.module, reference.encoder.rules
    head = reference.head if isinstance(reference, TorchEmbedder) else None
    accepted = inspect.signature(model.forward).parameters

    class Traceable(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.head = head

        def forward(
            self,
            input_ids: Any,
            attention_mask: Any,
            token_type_ids: Any = None,
            pooling_mask: Any = None,
        ) -> Any:
            if rules.takes_types and token_type_ids is None:
                token_type_ids = torch.zeros_like(input_ids)
            given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
            given = {name: t for name, t in given.items() if name in accepted and t is not None}
            if "use_cache" in accepted:
                given["use_cache"] = False
            answer = self.model(input_ids=input_ids, **given)
            if self.head is None:
                return answer.logits
            pooled = attention_mask if pooling_mask is None else pooling_mask
            return self.head(answer.last_hidden_state, attention_mask, pooled)

    return Traceable()
