"""The OpenVINO engine: serves a converted model on a CPU, without torch and transformers."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from app.engines.base import (
    CLASSIFYING,
    Activation,
    Encoded,
    EngineRequest,
    FloatArray,
    Task,
    TextOrPair,
    unit,
)
from app.engines.openvino.converted import Converted
from app.engines.openvino.packed_inputs import PackedInputs, pack
from app.engines.openvino.processor import GraphPair, Processor, release_memory
from app.engines.packing import Packing, lay_out, padded
from app.engines.scores import scores
from app.engines.token_windows import TokenEncoder, TokenRow, rows_of, windows_of
from app.engines.tokenizer import IntArray, Padding, TextEncoder

# The engine keeps kernels for each shape (texts, tokens) that it meets, up to 0.5 MB each, for
# good; and its buffers are those of the largest. So calls are cut into pieces of few shapes: a
# CPU gains nothing from larger ones. See docs/decisions/0004-openvino.md.
PIECE_TEXTS = 8
PIECE_TOKENS = 256
# The rows of a call, of as many tokens. On 2 cores with bfloat16, in processor time a text, with 64
# in flight: 1 row of 128 4.34 ms, 2 of 96 4.05, 2 of 128 3.95, 3 of 128 4.05, 4 of 64 4.01; padded
# 4.76. See docs/decisions/0016-packed-rows.md.
PACKING = Packing(rows=2, row_tokens=128)
# (texts, tokens): few and many tokens have their weights packed differently.
FIRST_SHAPES = ((1, 16), (8, 32), (1, 128))


def cut(batch: Sequence[Encoded]) -> Iterator[list[int]]:
    """Yield pieces of a batch, as indices: neighbours in length, few texts, few tokens."""
    piece: list[int] = []
    for index in sorted(range(len(batch)), key=lambda index: batch[index].cost):
        tokens = padded(batch[index].cost) * (len(piece) + 1)
        if piece and (len(piece) == PIECE_TEXTS or tokens > PIECE_TOKENS):
            yield piece
            piece = []
        piece.append(index)
    if piece:
        yield piece


def _calls(
    batch: Sequence[Encoded], encoder: TextEncoder, packed: PackedInputs | None
) -> Iterator[tuple[list[int], Mapping[str, IntArray]]]:
    """Yield the calls that run a batch: which of its texts, and the graph's inputs."""
    if packed is not None:
        for layout in lay_out([item.cost for item in batch], PACKING):
            texts = [index for row in layout.rows for index in row]
            yield texts, pack(batch, layout, rules=encoder.rules, inputs=packed)
        return
    is_padded = encoder.rules.padding is not Padding.NONE
    for piece in cut(batch) if is_padded else ([index] for index in range(len(batch))):
        items = [batch[index] for index in piece]
        width = min(padded(items[-1].cost), encoder.max_tokens) if is_padded else 0
        yield piece, encoder.pad(items, width=width)


class _OpenVinoText:
    """What the classifier and the embedder share: tokeniser, pieces, compiled graphs."""

    kind = "openvino"
    device = "cpu"
    tokenises_natively = True  # see batching/tokenising.py

    def __init__(self, encoder: TextEncoder, graphs: GraphPair, converted: Converted) -> None:
        self.encoder = encoder
        self._packed = converted.packing
        self.packing = PACKING if converted.packing is not None else None
        self.max_tokens = encoder.max_tokens
        self._graphs: GraphPair | None = graphs

    def encode(self, texts: Sequence[str]) -> Sequence[Encoded]:
        """Tokenise; a text longer than the model's window is cut and says so."""
        return self.encoder.encode(texts)

    def close(self) -> None:
        """Drop the compiled models."""
        self._graphs = None

    def _run(self, batch: Sequence[Encoded], columns: int) -> FloatArray:
        """Return the graph's output for each text, (batch, columns) float32."""
        output = np.empty((len(batch), columns), dtype=np.float32)
        for texts, rows in self._outputs(batch):
            output[texts] = rows
        return output

    def _outputs(self, batch: Sequence[Encoded]) -> Iterator[tuple[list[int], FloatArray]]:
        """Yield which texts of a batch were run in one call, and the graph's output for them."""
        if self._graphs is None:
            raise RuntimeError("the engine is closed")
        with self._graphs.choose() as graph:
            for texts, arrays in _calls(batch, self.encoder, self._packed):
                yield texts, graph.infer(arrays)[: len(texts)]


class OpenVinoClassifier(_OpenVinoText):
    """A sequence classifier, whose logits become scores as the task's own library makes them."""

    def __init__(self, encoder: TextEncoder, graphs: GraphPair, converted: Converted) -> None:
        super().__init__(encoder, graphs, converted)
        self.labels = converted.labels
        self.activation = converted.activation
        self.takes_pairs = converted.rules.takes_pairs
        self.needs_pairs = converted.needs_pairs
        self.entailment = converted.entailment

    def encode(self, texts: Sequence[TextOrPair]) -> list[Encoded]:
        """Tokenise texts and pairs; what is longer than the model's window is cut and says so."""
        return list(self.encoder.encode(texts))

    def classify(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return scores, (batch, labels) float32."""
        return scores(self._run(batch, len(self.labels)), self.activation)


class OpenVinoEmbedder(_OpenVinoText):
    """An encoder and the modules behind it, as sentence-transformers models are used."""

    def __init__(self, encoder: TextEncoder, graphs: GraphPair, converted: Converted) -> None:
        super().__init__(encoder, graphs, converted)
        self.dimensions = converted.dimensions
        self.vector_rules = converted.vector_rules
        self.passage_tokens = encoder.passage_tokens

    def encode(self, texts: Sequence[str], prompt: str = "") -> Sequence[Encoded]:
        """Tokenise texts with a prompt before each; too long a text is cut and says so."""
        return self.encoder.encode(texts, prompt)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the place of each token in a text of any length."""
        return self.encoder.offsets(text)

    def embed(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return vectors, (batch, dimensions) float32; of length 1 if the model's own are."""
        vectors = self._run(batch, self.dimensions)
        return unit(vectors) if self.vector_rules.is_unit else vectors


class OpenVinoTokenClassifier(_OpenVinoText):
    """A token classifier, whose rows hold logits for each token."""

    activation = Activation.SOFTMAX

    def __init__(self, encoder: TextEncoder, graphs: GraphPair, converted: Converted) -> None:
        super().__init__(encoder, graphs, converted)
        self.labels = converted.labels

    def classify_tokens(self, batch: Sequence[Encoded]) -> list[TokenRow]:
        """Return what is said of the tokens of each text."""
        windows = windows_of(batch)
        logits: dict[int, FloatArray] = {}
        for places, rows in self._outputs(windows):
            for place, row in zip(places, rows, strict=True):
                logits[place] = self._own(row, windows[place]).copy()
        return rows_of(batch, [logits[place] for place in range(len(windows))])

    def _own(self, row: FloatArray, window: Encoded) -> FloatArray:
        """Return the logits of a window's own tokens: rows of a packed graph begin with them."""
        is_packed = self._packed is not None
        return row[: window.cost] if is_packed else self.encoder.unpadded(row, window)


OpenVinoText = OpenVinoClassifier | OpenVinoEmbedder | OpenVinoTokenClassifier


def open_engine(request: EngineRequest, converted: Converted, processor: Processor) -> OpenVinoText:
    """Compile a converted model and put its tokeniser in front."""
    of_tokens = request.task == Task.NER
    kind = TokenEncoder if of_tokens else TextEncoder
    encoder = kind.read(converted.tokenizer, converted.rules, limit=request.max_tokens)
    # Bfloat16 has three digits: no softmax hides what that does to the numbers of a regression.
    # Logits are ranked, or go into a softmax later.
    is_regression = bool(converted.labels) and converted.activation is Activation.NONE
    is_exact = is_regression or converted.is_exact
    graphs = processor.compile(converted.graph, precision="f32" if is_exact else None)
    run_first(graphs, encoder, converted.packing)
    release_memory(converted.weights)
    if request.task in CLASSIFYING:
        return OpenVinoClassifier(encoder, graphs, converted)
    if of_tokens:
        return OpenVinoTokenClassifier(encoder, graphs, converted)
    return OpenVinoEmbedder(encoder, graphs, converted)


def run_first(graphs: GraphPair, encoder: TextEncoder, packed: PackedInputs | None) -> None:
    """Run each shape once: first calls pack the weights, and no request should wait for it."""
    if encoder.rules.padding is Padding.NONE:
        return  # it takes whole texts only; `warm` makes the first call
    for texts, tokens in FIRST_SHAPES:
        blank = Encoded(token_ids=[0] * min(tokens, encoder.max_tokens), is_truncated=False)
        for _, arrays in _calls([blank] * texts, encoder, packed):
            for graph in graphs.all:
                graph.infer(arrays)
