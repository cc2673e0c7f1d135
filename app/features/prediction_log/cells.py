"""Which cells of CSV a spreadsheet would take for a formula, and how they are disarmed.

https://owasp.org/www-community/attacks/CSV_Injection
"""

from unicodedata import category, normalize

# What begins a formula, also in the wide and small forms that East Asian input methods write.
STARTS = frozenset("=+-@\N{MINUS SIGN}")
# A spreadsheet may begin the cell anew behind them.
BREAKS = ("\t", "\r", "\n")
QUOTES = frozenset("\"'")
# Control characters, marks that aren't shown, blanks and separators of any kind.
SKIPPED = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})


def disarm(text: str) -> str:
    """Return the text, with an apostrophe before it if a spreadsheet might run it."""
    return f"'{text}" if is_formula(text) else text


def is_formula(text: str) -> bool:
    """Tell whether a spreadsheet might run a cell with this text.

    Blanks, quotes and marks that aren't shown don't count: some programs strip them.
    """
    if text[:1].isalnum():  # nearly all texts, at once
        return False
    if text.startswith(BREAKS):
        return True
    first = next((c for c in text if c not in QUOTES and category(c) not in SKIPPED), "")
    return normalize("NFKC", first) in STARTS
