"""What the folder of a converted model holds; its name says what it was made of."""

import hashlib
import importlib.metadata
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from app.engines.base import (
    CLASSIFYING,
    Activation,
    EmbeddingOptions,
    EngineRequest,
    OpenVinoOptions,
)
from app.engines.folder.heads import cross_encoder_mark
from app.engines.folder.module_list import module_files
from app.engines.openvino.packed_inputs import PackedInputs
from app.engines.tokenizer import Padding, TextRules
from app.engines.torch import ADAPTER_FILES
from app.engines.vector_rules import Similarity, VectorRules
from app.errors import EngineError

# Raise it when what is saved changes: folders of an older format are then left alone.
FORMAT = 6
# What affects the graph; their versions are part of the folder's name.
LIBRARIES = ("openvino", "torch", "transformers", "peft", "tokenizers")
# What transformers reads; a changed README makes no other model.
READ_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".spm", ".tiktoken")
GRAPH, WEIGHTS, TOKENIZER, DESCRIPTION = "model.xml", "model.bin", "tokenizer.json", "model.json"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A converted model, and what serving it takes beside the graph."""

    folder: Path
    rules: TextRules
    labels: tuple[str, ...] = ()
    activation: Activation = Activation.NONE
    needs_pairs: bool = False
    entailment: int | None = None  # which label it is, for zero-shot-classification
    dimensions: int = 0
    vector_rules: VectorRules = field(default_factory=VectorRules)
    packing: PackedInputs | None = None  # the graph takes texts in rows; None: padded batches
    is_exact: bool = False  # computed in float32 on every processor

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
    """Return where this model lies once it is converted.

    The name holds a digest of the weights, the adapter, the labels and the libraries' versions.
    """
    digest = hashlib.sha256(repr((FORMAT, request.task, request.labels)).encode())
    if request.embedding != EmbeddingOptions():
        digest.update(repr(request.embedding).encode())
    if request.task in CLASSIFYING and request.folder and cross_encoder_mark(request.folder):
        digest.update(b"cross-encoder\n")  # a model's card can say so, which is none of its files
    if not request.is_packed:
        digest.update(b"padded\n")
    for library in LIBRARIES:
        digest.update(f"{library}=={_version(library)}\n".encode())
    for file in _files(request):
        digest.update(f"{file.name} {fingerprint(file)}\n".encode())
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


def fingerprint(file: Path) -> str:
    """Return a file's size and CRC: quick, as each start does it, and enough against accidents.

    Against tampering there are the pins of the catalogue.
    """
    crc = size = 0
    with file.open("rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
            size += len(chunk)
    return f"{size}-{crc:08x}"


def describe(converted: Converted) -> None:
    """Write what `read` gives back, with a fingerprint of each file."""
    description = asdict(converted)
    folder = description.pop("folder")
    files = (GRAPH, WEIGHTS, TOKENIZER)
    description["files"] = {name: fingerprint(folder / name) for name in files}
    (folder / DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")


def read(folder: Path) -> Converted | None:
    """Return the converted model of a folder; None if it is missing or damaged."""
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        files = description.pop("files")
        is_intact = all(fingerprint(folder / name) == digest for name, digest in files.items())
        labels = tuple(description.pop("labels"))
        rules = description.pop("rules")
        rules = TextRules(
            **rules
            | {"padding": Padding(rules["padding"]), "special_ids": tuple(rules["special_ids"])}
        )
        vectors = description.pop("vector_rules")
        vectors = VectorRules(**vectors | {"similarity": Similarity(vectors["similarity"])})
        activation = Activation(description.pop("activation"))
        packing = description.pop("packing")
        converted = Converted(
            folder=folder,
            packing=PackedInputs(**packing) if packing is not None else None,
            labels=labels,
            rules=rules,
            activation=activation,
            vector_rules=vectors,
            **description,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return converted if is_intact else None
