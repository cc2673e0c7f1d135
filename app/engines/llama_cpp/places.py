"""Where the tokens of a text stand in it, found by what each token stands for. Pure.

llama.cpp doesn't say. A tokeniser may change a text before it cuts it (case, accents, blanks), so
both are compared without all that. The places are used to cut texts, not to quote them.
"""

import codecs
import unicodedata
from collections.abc import Iterator, Sequence

BLANK = "\u2581"  # how vocabularies write a blank
# How far a token that isn't at its place is looked for: behind a word that has no token.
FAR = 200
PART = 4096  # characters of a text that are looked at together


def places(text: str, pieces: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return the place of each token: start and end in characters, in order.

    Args:
        text: as it was tokenised.
        pieces: the bytes that each token stands for. Of a token that isn't found in the text, such
            as one for unknown words, the place is empty.

    """
    plain, taken = "", 0
    indices: list[int] = []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    found: list[tuple[int, int]] = []
    here, end = 0, 0  # in the plain text; in the text
    for piece in pieces:
        wanted = "".join(char for c in decoder.decode(piece) for char in _plain(c))
        while len(plain) < here + FAR + len(wanted) and taken < len(text):
            # Of a long text only the beginning may be asked for.
            more = _plain_part(text, taken, taken + PART, indices)
            plain, taken = plain + more, taken + PART
        place = plain.find(wanted, here, here + FAR + len(wanted)) if wanted else -1
        if place < 0:
            # A blank, a part of a character, or what stands for something else.
            start = indices[here] if here < len(indices) and not wanted else end
            found.append((max(start, end), max(start, end)))
            continue
        here = place + len(wanted)
        end = indices[here - 1] + 1
        found.append((indices[place], end))
    return found


def _plain_part(text: str, start: int, end: int, indices: list[int]) -> str:
    """Return a part of a text as it is compared; add the index of each character that is left."""
    pairs = [(char, index) for index, c in enumerate(text[start:end], start) for char in _plain(c)]
    indices.extend(index for _, index in pairs)
    return "".join(char for char, _ in pairs)


def _plain(char: str) -> Iterator[str]:
    """Yield what is left of a character without case, accents and blanks."""
    if char == BLANK:
        return
    for part in unicodedata.normalize("NFKD", char.lower()):
        if not part.isspace() and not unicodedata.combining(part):
            yield part.lower()
