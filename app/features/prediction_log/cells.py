"""Escapes cells of CSV that a spreadsheet would run as a formula.

https://owasp.org/www-community/attacks/CSV_Injection
"""

from unicodedata import category, normalize

# Characters that begin a formula; their full-width and small forms are normalised to these.
STARTS = frozenset("=+-@\N{MINUS SIGN}")
# After these a spreadsheet may begin a new cell.
BREAKS = ("\t", "\r", "\n")
QUOTES = frozenset("\"'")
# Control characters, invisible characters, blanks and separators of any kind.
SKIPPED = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})


def escape(text: str) -> str:
    """Return the text, with an apostrophe before it if a spreadsheet might run it."""
    return f"'{text}" if is_formula(text) else text


def is_formula(text: str) -> bool:
    """Tell whether a spreadsheet might run a cell with this text.

    Leading blanks, quotes and invisible characters are skipped, since some programs strip them.
    """
    if text[:1].isalnum():  # a shortcut for nearly all texts
        return False
    if text.startswith(BREAKS):
        return True
    first = next((c for c in text if c not in QUOTES and category(c) not in SKIPPED), "")
    return normalize("NFKC", first) in STARTS
