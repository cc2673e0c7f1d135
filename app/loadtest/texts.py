"""Texts to ask with: a file's lines, or a short list of mixed lengths."""

from pathlib import Path

from app.errors import StartupError

# As people write: the median is a sentence, the longest a paragraph; 22 tokens on average.
TEXTS = (
    "Great value.",
    "Not worth it.",
    "A dull, lifeless waste of two hours.",
    "The battery lasts two days and the screen is a joy.",
    "It broke after a week, and nobody answers my mails about it.",
    "I bought this for my father, who had never owned a phone; he has not put it down since.",
    (
        "The plot makes no sense, the acting is wooden and the music never stops, but my children"
        " were quiet for ninety minutes, and for that I am grateful."
    ),
    (
        "A film that stays with you for days, in which nothing is said twice. What could have been"
        " one more story of a family at odds becomes, through patience and a camera that looks away"
        " at the right moments, something close to a confession; the last half hour is as good as"
        " anything that I have seen this year."
    ),
)


def read_texts(path: Path | None) -> list[str]:
    """Return the lines of a file that aren't empty, or the list above.

    Raises:
        StartupError: the file can't be read, or has no text.

    """
    if path is None:
        return list(TEXTS)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as failure:
        raise StartupError(f"{path}: can't be read: {failure}") from failure
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise StartupError(f"{path}: has no text; a line is one")
    return texts
