"""Text from recipes, records and file names, made safe to print: nothing in it can act on a terminal or turn round the text beside it."""

from __future__ import annotations

import re

# Control characters (C0, DEL, C1) except tab and line feed, separators of lines and paragraphs, embeddings, overrides and isolates of the
# direction of reading, and halves of surrogate pairs. Marks of direction and invisible characters that scripts and emoji need are text.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def unprintable(text: str) -> bool:
    """Whether a terminal or a page would act on a character of the text instead of showing it."""
    return _UNPRINTABLE.search(text) is not None


def printable(text: str) -> str:
    """The text with JSON's escapes, such as `\\u001b`, in the place of characters that are not printed. Tabs and line feeds stay.

    A JSON text remains the same value.
    """
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
