"""Converts a torch model for OpenVINO: traces it, and saves it atomically."""

import inspect
import logging
import shutil
import textwrap
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.engines.base import Encoded
from app.engines.openvino.converted import GRAPH, TOKENIZER, Converted, describe
from app.engines.openvino.failures import ConversionError, InterruptedConversionError
from app.engines.openvino.packed_graph import packed_module
from app.engines.openvino.packed_inputs import PackedInputs, pack
from app.engines.openvino.processor import openvino_library
from app.engines.packing import Layout
from app.engines.tokenizer import IntArray, Padding, TextEncoder
from app.engines.torch import MAX_REASON_CHARS, Reference, TorchClassifier
from app.engines.torch_embedder import TorchEmbedder

# Two rows of different length: a traced graph must not learn that all rows are full.
EXAMPLES = ("A film that stays with you for days.", "fine")
MATRIX = 2


def convert(
    reference: Reference, folder: Path, *, packing: PackedInputs | None = None
) -> Converted:
    """Convert a loaded model and save it atomically.

    Without `packing` it takes padded batches.

    Call it with the cache's lock held: what another conversion of the same model has left
    half-written is removed.

    Raises:
        ConversionError: OpenVINO can't convert the model, or the folder can't be written.

    """
    with converted_into(folder) as temporary:
        converted = _save(reference, temporary, packing)
    return replace(converted, folder=folder)


@contextmanager
def converted_into(folder: Path) -> Iterator[Path]:
    """Give a folder to convert into, which takes the place of this one when all is written.

    Call it with the cache's lock held: what another conversion has left half-written is removed.

    Raises:
        ConversionError: OpenVINO can't convert the model, or the folder can't be written.

    """
    try:
        for leftover in folder.parent.glob(f".{folder.name}-*"):
            shutil.rmtree(leftover)
        temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
        temporary.mkdir(parents=True)
        with _log_level_kept():
            yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as failure:
        raise InterruptedConversionError(f"{type(failure).__name__}: {failure}") from failure
    except Exception as failure:  # OpenVINO's tracer has exceptions of its own, and models any
        reason = textwrap.shorten(f"{type(failure).__name__}: {failure}", MAX_REASON_CHARS)
        raise ConversionError(reason) from failure


@contextmanager
def _log_level_kept() -> Iterator[None]:
    """Undo what OpenVINO's converter does: it lets the whole process log errors only."""
    root = logging.getLogger()
    level = root.level
    try:
        yield
    finally:
        root.setLevel(level)


def _save(reference: Reference, folder: Path, packing: PackedInputs | None) -> Converted:
    """Write graph, weights, tokeniser and, last, their description with a fingerprint of each."""
    openvino = openvino_library()
    graph = _graph(openvino, reference, packing)
    _halve_embeddings(openvino, graph)
    # The rest in full precision: half would be held in memory once more, as float32, where this
    # is mapped from the file.
    openvino.save_model(graph, folder / GRAPH, compress_to_fp16=False)
    reference.encoder.save(folder / TOKENIZER)
    converted = Converted(folder=folder, rules=reference.encoder.rules, packing=packing)
    if isinstance(reference, TorchEmbedder):
        dimensions, vectors = reference.dimensions, reference.vector_rules
        converted = replace(converted, dimensions=dimensions, vector_rules=vectors)
    else:
        converted = replace(converted, labels=reference.labels, activation=reference.activation)
    if isinstance(reference, TorchClassifier):
        needs, entails = reference.needs_pairs, reference.entailment
        converted = replace(converted, needs_pairs=needs, entailment=entails)
    describe(converted)
    return converted


def _graph(openvino: Any, reference: Reference, packing: PackedInputs | None) -> Any:
    """Trace the model: token ids and what goes with them in, logits or vectors out.

    Softmax and scaling to length 1 stay outside, in float32: in bfloat16 probabilities would no
    longer sum to 1.
    """
    import torch

    example = _example(reference, packing)
    module = plain_module(reference) if packing is None else packed_module(reference)
    with warnings.catch_warnings():
        # OpenVINO traces with torch.jit, which torch deprecates; the graph is compared with
        # torch afterwards, which would show what the tracer warns of.
        warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        graph = openvino.convert_model(
            module,
            example_input={name: torch.from_numpy(array) for name, array in example.items()},
        )
    if packing is not None:
        # The tracer gives an input names of its own besides, and the engine asks for one of them.
        for port in graph.inputs:
            port.get_tensor().set_names(port.get_names() & example.keys())
    return graph


def _example(reference: Reference, packing: PackedInputs | None) -> Mapping[str, IntArray]:
    """Return inputs to trace with."""
    encoder = reference.encoder
    if packing is not None:
        # Two rows, and one of them isn't full.
        items = _encode(encoder, (*EXAMPLES, EXAMPLES[0]))
        width = items[0].cost + items[1].cost + 1
        layout = Layout(rows=[[0, 1], [2]], width=width)
        return pack(items, layout, rules=encoder.rules, inputs=packing)
    # A model that can't be given padding may not be given a second row either.
    texts = EXAMPLES[:1] if encoder.rules.padding is Padding.NONE else EXAMPLES
    return encoder.pad(_encode(encoder, texts))


def _encode(encoder: TextEncoder, texts: Sequence[str]) -> list[Encoded]:
    return [item.first_window for item in encoder.encode(texts)]


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


def plain_module(reference: Reference) -> Any:
    """Wrap a model so that it takes padded batches, as `TextEncoder.pad` returns them."""
    import torch

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
            arguments = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
            arguments = {
                name: t for name, t in arguments.items() if name in accepted and t is not None
            }
            if "use_cache" in accepted:
                arguments["use_cache"] = False
            output = self.model(input_ids=input_ids, **arguments)
            if self.head is None:
                return output.logits
            pooled = attention_mask if pooling_mask is None else pooling_mask
            return self.head(output.last_hidden_state, attention_mask, pooled)

    return Traceable()
