"""What a packed graph is given: the tokens of all texts in rows, and where each text's lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.engines.base import Encoded
from app.engines.packing import Layout, padded
from app.engines.tokenizer import IntArray, TextRules

# Kernels are kept for each number of texts: it is filled up to a multiple.
TEXTS_STEP = 4
NO_TEXT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedInputs:
    """How a model is told of texts in rows."""

    first_position: int  # of each text: 0, or 2 for RoBERTa and its kin
    is_first_enough: bool  # of a text's tokens only the first reaches the head
    # RoBERTa and its kin don't count this token, wherever it is: its position is the one before
    # the first.
    uncounted_id: int | None = None

    def positions(self, token_ids: Sequence[int]) -> IntArray:
        """Return the position of each token of a text."""
        if self.uncounted_id is None:
            return np.arange(len(token_ids)) + self.first_position
        is_counted = np.asarray(token_ids) != self.uncounted_id
        positions: IntArray = np.cumsum(is_counted) * is_counted + (self.first_position - 1)
        return positions


def pack(
    batch: Sequence[Encoded], layout: Layout, *, rules: TextRules, inputs: PackedInputs
) -> Mapping[str, IntArray]:
    """Return a packed graph's inputs by name, int64, and the texts in the order of its rows.

    `input_ids`, `position_ids`, `segments` (the number of the text that a token belongs to) and
    perhaps `token_type_ids` are (rows, width); `places` of each text's tokens in those rows, one
    row behind the other, `attention_mask` and perhaps `pooling_mask` (texts, tokens).
    """
    shape = (len(layout.rows), layout.width)
    texts = [index for row in layout.rows for index in row]
    longest = 1 if inputs.is_first_enough else padded(max(batch[i].cost for i in texts))
    gathered = (-(-len(texts) // TEXTS_STEP) * TEXTS_STEP, longest)
    ids = np.full(shape, rules.pad_id, dtype=np.int64)
    positions, types = np.full_like(ids, inputs.first_position), np.zeros_like(ids)
    segments = np.full_like(ids, NO_TEXT)
    places, mask, pooled = (np.zeros(gathered, dtype=np.int64) for _ in range(3))
    mask[:, 0] = pooled[:, 0] = 1  # of rows without a text too: a mean of nothing isn't a number
    text = 0
    for row, indices in enumerate(layout.rows):
        start = 0
        for index in indices:
            item = batch[index]
            place = slice(start, start + item.cost)
            ids[row, place] = item.token_ids
            positions[row, place] = inputs.positions(item.token_ids)
            segments[row, place] = text
            if item.type_ids:
                types[row, place] = item.type_ids
            kept = min(item.cost, longest)
            places[text, :kept] = np.arange(kept) + (row * layout.width + start)
            mask[text, :kept] = 1
            pooled[text, :kept] = np.arange(kept) >= item.left_out
            start, text = place.stop, text + 1
    arrays = {"input_ids": ids, "position_ids": positions, "segments": segments}
    arrays |= {"places": places, "attention_mask": mask}
    if rules.leaves_prompt_out:
        arrays["pooling_mask"] = pooled
    return arrays | {"token_type_ids": types} if rules.has_types else arrays
