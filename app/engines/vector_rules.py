"""What is done around an embedder's model: the prompt before a text, the vector's cut and scale."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from app.engines.base import FloatArray, unit
from app.engines.rows import RowsRefusedError, lack_length
from app.errors import UnsupportedFieldError

# Names that sentence-transformers knows for each model; without a text of theirs they are empty.
QUERY, DOCUMENT = "query", "document"


class Similarity(StrEnum):
    """How vectors are compared, by sentence-transformers' names."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorRules:
    """What holds for all texts and vectors of one embedder."""

    prompts: Mapping[str, str] = field(default_factory=lambda: {QUERY: "", DOCUMENT: ""})
    default_prompt: str = ""  # of a text that is embedded without a prompt's name
    similarity: Similarity = Similarity.COSINE
    is_unit: bool = True  # the model itself scales its vectors to length 1
    dimensions: int | None = None  # that are kept where a request names none; None: all
    # Sentence-transformers applies a folder's truncate_dim after scaling, and doesn't scale again.
    scales_again: bool = True
    edition: str = ""  # tells apart vectors that were made differently; "": by defaults

    def prompt(self, name: str | None) -> str:
        """Return what is put before a text; None asks for the default.

        Raises:
            UnsupportedFieldError: there is no such prompt.

        """
        if name is None:
            return self.default_prompt
        if name not in self.prompts:
            names = ", ".join(sorted(self.prompts))
            raise UnsupportedFieldError(
                "prompt_name", detail=f"This model has no prompt of that name; it has {names}."
            )
        return self.prompts[name]

    def refuse_beyond(self, dimensions: int | None, *, width: int) -> None:
        """Check that a request asks for no more dimensions than the model has.

        Raises:
            UnsupportedFieldError: it does.

        """
        if dimensions is not None and dimensions > width:
            raise UnsupportedFieldError(
                "dimensions",
                detail=f"This model has {width} dimensions; {dimensions} are too many.",
            )

    def shaped(self, vector: FloatArray, dimensions: int | None = None) -> FloatArray:
        """Return a vector as it is answered: cut, and scaled to length 1 where the model does so.

        Args:
            vector: as the engine gave it, (width,).
            dimensions: that a request asks for.

        Raises:
            RowsRefusedError: what is left of it has no length that float32 can hold.

        """
        size = dimensions or self.dimensions
        if size is None or size >= len(vector):
            return vector
        cut = _with_length(vector[:size])
        scales = self.is_unit and (dimensions is not None or self.scales_again)
        return unit(cut) if scales else cut

    def comparable(self, vector: FloatArray) -> FloatArray:
        """Return a shaped vector as the index holds and compares it.

        Raises:
            RowsRefusedError: it has no length; one that is shaped always has.

        """
        return unit(_with_length(vector)) if self.similarity is Similarity.COSINE else vector


def _with_length(vector: FloatArray) -> FloatArray:
    if lack_length(vector):
        raise RowsRefusedError(f"a vector has no length in its first {len(vector)} dimensions")
    return vector


def edition_of(
    rules: VectorRules,
    *,
    width: int,
    steps: tuple[str, ...],
    leaves_prompt_out: bool,
    lowers_case: bool,
) -> str:
    """Return a short name of all settings that make vectors differ from plain mean pooling's.

    Only what differs from that counts: vectors that are stored already keep their name, also when
    more settings are known one day.

    Args:
        rules: the model's, without an edition.
        width: of its vectors, uncut.
        steps: the poolings and the modules that follow, by their names, but for a last Normalize.
        leaves_prompt_out: a prompt isn't pooled.
        lowers_case: texts are put in lower case before the tokeniser sees them.

    """
    is_cut = rules.dimensions is not None and rules.dimensions < width
    is_unit = rules.is_unit and (rules.scales_again or not is_cut)
    prompt = rules.prompts[DOCUMENT]
    differs: dict[str, Any] = {
        "steps": steps if steps != ("mean",) else None,
        "prompt": prompt or None,
        "leaves_prompt_out": (leaves_prompt_out and bool(prompt)) or None,
        "lowers_case": lowers_case or None,
        "dimensions": rules.dimensions if is_cut else None,
        "has_own_length": (rules.similarity is not Similarity.COSINE and not is_unit) or None,
    }
    differs = {name: value for name, value in differs.items() if value is not None}
    if not differs:
        return ""
    return hashlib.sha256(json.dumps(differs, sort_keys=True).encode()).hexdigest()[:8]
