"""Engines as a front end has them: they tokenise, and say what the model is.

They have what `engines/base.py` wants of an engine but for the method that runs it, so that nothing
but a scheduler of this package can be given them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from app.engines.base import Activation, Encoded, FloatArray, TextOrPair
from app.engines.items import Prepared
from app.engines.token_windows import TokenRow, TokenText
from app.engines.vector_rules import VectorRules
from app.sharing.frames import LinkError

if TYPE_CHECKING:
    from app.sharing.encoders import Encoder


@dataclass(frozen=True, kw_only=True)
class SharedText:
    """What they share."""

    encoder: "Encoder"
    kind: str
    device: str
    tokenises_natively: bool

    @property
    def max_tokens(self) -> int:
        """The window: longer texts are cut to it, or run in windows."""
        return self.encoder.max_tokens

    @property
    def width(self) -> int:
        """How many numbers a row has; of a token classifier, of each token."""
        raise NotImplementedError

    def encode(self, texts: Sequence[TextOrPair], prompt: str = "") -> Sequence[Encoded]:
        """Tokenise texts, with a prompt before each."""
        return self.encoder.encode(texts, prompt)

    def row(self, numbers: FloatArray, _: Prepared, /) -> Any:  # noqa: ANN401  # a row of any task
        """Return the row of a text, given its numbers as they have come.

        Raises:
            LinkError: there are too many or too few.

        """
        if len(numbers) != self.width:
            raise LinkError(f"a row of {len(numbers)} numbers where {self.width} are right")
        return numbers

    def close(self) -> None:
        """Nothing is held: the model belongs to the other process."""


@dataclass(frozen=True, kw_only=True)
class SharedClassifier(SharedText):
    """A classifier, of texts or pairs."""

    labels: tuple[str, ...]
    activation: Activation
    takes_pairs: bool
    needs_pairs: bool
    entailment: int | None

    @property
    def width(self) -> int:
        """How many labels there are."""
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class SharedEmbedder(SharedText):
    """An embedder."""

    dimensions: int
    passage_tokens: int
    vector_rules: VectorRules

    @property
    def width(self) -> int:
        """How many dimensions a vector has."""
        return self.dimensions

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the place of each token in a text of any length."""
        return self.encoder.offsets(text)


@dataclass(frozen=True, kw_only=True)
class SharedTokenClassifier(SharedText):
    """A token classifier."""

    labels: tuple[str, ...]

    @property
    def width(self) -> int:
        """How many labels there are."""
        return len(self.labels)

    def row(self, numbers: FloatArray, item: Prepared, /) -> TokenRow:
        """Return the row of a text; where its tokens stand the front end has kept."""
        assert isinstance(item, TokenText)  # noqa: S101  # its encoder makes no others
        if len(numbers) != self.width * len(item.offsets):
            raise LinkError("the numbers of a row aren't those of its tokens")
        logits = np.reshape(numbers, (len(item.offsets), self.width))
        return TokenRow(logits, item.offsets, item.is_subword)
