"""Text to token ids and padded arrays, on the tokenizers library alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from app.engines.base import Encoded, FloatArray, TextOrPair
from app.engines.tokens import Token
from app.errors import EngineError, TextTooLongError

IntArray = npt.NDArray[np.int64]
TOO_SHORT = "too short"  # in what the library says of a text that would be cut to nothing
NO_ROOM = "The second text leaves no room for the first in the model's window."


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or nothing where the file is missing."""
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


class Padding(StrEnum):
    """How texts of different length are padded, so that each is answered as it is alone."""

    RIGHT = "right"
    LEFT = "left"
    NONE = "none"  # they can't: one text a call, exactly as long as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRules:
    """What encoding and batching take beside what tokenizer.json can say."""

    window: int  # tokens that the model runs at most, special ones included
    truncation: str = "right"  # the side on which a longer text is cut
    padding: Padding = Padding.RIGHT
    pad_id: int = 0
    takes_types: bool = False  # the model is given token types
    has_types: bool = False  # and some of them aren't 0, of a text or of a pair
    takes_pairs: bool = False
    # Of a pair too long only the first text is cut; else the longer of the two, token by token.
    cuts_first: bool = False
    splits_special_tokens: bool = False  # "[SEP]" in a text is text
    # By sentence_bert_config.json, more than the tokeniser itself does; it is in the normaliser.
    lowers_case: bool = False
    leaves_prompt_out: bool = False  # of the pooling
    special_ids: tuple[int, ...] = ()  # of these one at a prompt's end isn't left out
    unknown_id: int | None = None  # of a word that the tokeniser doesn't know


class TextEncoder:
    """The tokeniser of one model. Encoding releases the GIL and is safe in any thread.

    Args:
        tokenizer: the model's; belongs to this object from now on.
        rules: the model's.
        limit: the catalogue's own `max_tokens`.

    """

    def __init__(self, tokenizer: Tokenizer, rules: TextRules, *, limit: int | None = None) -> None:
        self._tokenizer = tokenizer
        self.rules = rules
        self.max_tokens = min(rules.window, limit or rules.window)
        special_tokens = tokenizer.num_special_tokens_to_add(is_pair=False)
        if self.max_tokens <= special_tokens:
            raise EngineError(f"{self.max_tokens} tokens leave no room for a text")
        tokenizer.no_padding()
        tokenizer.enable_truncation(
            max_length=self.max_tokens,
            direction=rules.truncation,
            strategy="only_first" if rules.cuts_first else "longest_first",
        )
        tokenizer.encode_special_tokens = rules.splits_special_tokens
        self.passage_tokens = self.max_tokens - special_tokens

    @classmethod
    def read(cls, file: Path, rules: TextRules, *, limit: int | None = None) -> Self:
        """Read what `save` wrote.

        Raises:
            EngineError: the file can't be read, or the limit leaves no room for a text.

        """
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as failure:  # the library raises nothing narrower
            raise EngineError(f"{file}: can't be read: {failure}") from failure
        return cls(tokenizer, rules, limit=limit)

    def encode(self, texts: Sequence[TextOrPair], prompt: str = "") -> Sequence[Encoded]:
        """Tokenise texts or pairs; one that is too long is cut and says so.

        Args:
            texts: to tokenise.
            prompt: put before each; there are none for pairs.

        Raises:
            TextTooLongError: the second text of a pair alone doesn't fit, where only the first is
                to be cut.

        """
        prompted = list(texts)
        if prompt:
            prompted = [prompt + cast("str", text) for text in texts]
        left_out = self._left_out(prompt) if prompt and self.rules.leaves_prompt_out else 0
        unknown = self.rules.unknown_id
        return [
            Encoded(
                token_ids=(ids := e.ids),
                is_truncated=bool(e.overflowing),
                type_ids=e.type_ids if self.rules.has_types else (),
                left_out=left_out,
                unknown=None if unknown is None else ids.count(unknown),
            )
            for e in self._run(prompted)
        ]

    def _run(self, texts: list[TextOrPair]) -> Sequence[Any]:
        try:
            # Without offsets, which takes a fifth less time.
            return self._tokenizer.encode_batch_fast(texts)
        except Exception as failure:  # the library raises nothing narrower
            if self.rules.cuts_first and TOO_SHORT in str(failure):
                raise TextTooLongError(NO_ROOM) from failure
            raise

    def _left_out(self, prompt: str) -> int:
        """Return how many tokens of a text are its prompt's, as sentence-transformers counts."""
        ids = self._tokenizer.encode(prompt).ids
        return len(ids) - bool(ids and ids[-1] in self.rules.special_ids)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the place of each token in a text of any length, in characters and in order."""
        first = self._tokenizer.encode(text, add_special_tokens=False)
        # What is beyond the window: truncation can't be switched off for one call. Where the left
        # is cut off, the last part comes first.
        return sorted(place for part in (first, *first.overflowing) for place in part.offsets)

    def tokens(self, text: str, *, with_special: bool) -> list[Token]:
        """Return the tokens of a text of any length, as `ShowsTokens` says."""
        first = self._tokenizer.encode(text, add_special_tokens=False)
        pairs = [p for e in (first, *first.overflowing) for p in zip(e.offsets, e.ids, strict=True)]
        parts = sorted(pairs, key=itemgetter(0))  # as in `offsets`
        found = [Token(id=i, text=text[place[0] : place[1]], place=place) for place, i in parts]
        if not with_special:
            return found
        whole = self._tokenizer.encode("")  # what is put around nothing
        names = zip(whole.ids, whole.tokens, strict=True)
        around = [Token(id=i, text=name, place=None) for i, name in names]
        own = self._tokenizer.encode(text)
        front = own.special_tokens_mask.index(0) if 0 in own.special_tokens_mask else len(around)
        return [*around[:front], *found, *around[front:]]

    def vocabulary(self) -> Mapping[str, int]:
        """Return token → id, added tokens too."""
        return self._tokenizer.get_vocab()

    def save(self, file: Path) -> None:
        """Write what reads quickly and without transformers, whatever the model came with."""
        self._tokenizer.save(str(file))

    def dump(self) -> str:
        """Return what `save` writes."""
        return self._tokenizer.to_str()

    def unpadded(self, row: FloatArray, item: Encoded) -> FloatArray:
        """Return what was answered of an item's own tokens, (tokens, …), of a padded row."""
        is_left = self.rules.padding is Padding.LEFT
        return row[len(row) - item.cost :] if is_left else row[: item.cost]

    def pad(self, batch: Sequence[Encoded], *, width: int = 0) -> Mapping[str, IntArray]:
        """Return what the model is given by name, each (batch, the longest or `width`) int64."""
        shape = (len(batch), max(width, *(item.cost for item in batch)))
        ids = np.full(shape, self.rules.pad_id, dtype=np.int64)
        mask, types, pooled = np.zeros_like(ids), np.zeros_like(ids), np.zeros_like(ids)
        for row, item in enumerate(batch):
            start = shape[1] - item.cost if self.rules.padding is Padding.LEFT else 0
            place = slice(start, start + item.cost)
            ids[row, place] = item.token_ids
            mask[row, place] = 1
            pooled[row, start + item.left_out : place.stop] = 1
            if item.type_ids:
                types[row, place] = item.type_ids
        arrays = {"input_ids": ids, "attention_mask": mask}
        if self.rules.leaves_prompt_out:
            arrays["pooling_mask"] = pooled
        return arrays | {"token_type_ids": types} if self.rules.has_types else arrays
