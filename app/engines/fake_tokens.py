"""A token classifier without weights: words that begin with a capital letter are entities."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.engines.base import Encoded
from app.engines.token_windows import TokenRow, TokenText

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
WORD = re.compile(r"\w+|[^\w\s]")
SURE = 6.0  # the logit of the label that wins; of all others 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Words(TokenText):
    """A text whose tokens are its words; `token_ids` are its bytes."""

    text: str


def words_of(text: str) -> Words:
    """Return a text's words and where they stand."""
    data = text.encode("utf-8", "surrogatepass")
    places = [match.span() for match in WORD.finditer(text)]
    whole = Encoded(token_ids=data, is_truncated=False)
    return Words(
        token_ids=data,
        is_truncated=False,
        windows=(whole,),
        offsets=np.array(places, dtype=np.int64).reshape(-1, 2),
        is_subword=np.zeros(len(places), dtype=np.bool_),
        text=text,
    )


def row_of(item: Words, labels: Sequence[str]) -> TokenRow:
    """Return the row of a text: label 1 for a name's first word, 2 for those that follow."""
    logits = np.zeros((len(item.offsets), len(labels)), dtype=np.float32)
    was_name = False
    for place, (start, _) in enumerate(item.offsets):
        is_name = item.text[start].isupper()
        label = (2 if was_name else 1) if is_name else 0
        logits[place, min(label, len(labels) - 1)] = SURE
        was_name = is_name
    return TokenRow(logits, item.offsets, item.is_subword)
