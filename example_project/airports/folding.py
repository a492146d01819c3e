"""Letters as people type them: "Egilsstaðir" is found as "egilsstadir"."""

from __future__ import annotations

import unicodedata

# Letters that Unicode does not take apart into a base and an accent.
LETTERS = str.maketrans(
    {"æ": "ae", "ð": "d", "đ": "d", "ı": "i", "ł": "l", "ø": "o", "œ": "oe", "þ": "th"}
)


def fold(text: str) -> str:
    """Return the text without accents, in lower case, with single spaces."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    letters = "".join(c for c in decomposed if not unicodedata.combining(c))
    return " ".join(letters.translate(LETTERS).split())
