"""Text from recipes, records and file names, made safe to print: nothing in it can move a cursor or change the order of reading."""

from __future__ import annotations

import json
import re
import unicodedata

# Control characters (C0, C1) except tab and line feed, invisible format characters (such as U+202E, which reverses the text after it)
# except the joiners that emoji and several scripts need, separators of lines and paragraphs, and halves of surrogate pairs.
_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
_ALLOWED = "\t\n\u200c\u200d"
_PLAIN = re.compile(r"[ -~\t\n]*")


def unprintable(letter: str) -> bool:
    """Whether a terminal or a page would act on a character instead of showing it."""
    return letter not in _ALLOWED and unicodedata.category(letter) in _CATEGORIES


def printable(text: str) -> str:
    """The text with JSON's escapes, such as `\\u001b`, in the place of characters that are not printed. Tabs and line feeds stay.

    A JSON text remains the same value.
    """
    if _PLAIN.fullmatch(text):
        return text
    return "".join(json.dumps(letter)[1:-1] if unprintable(letter) else letter for letter in text)
