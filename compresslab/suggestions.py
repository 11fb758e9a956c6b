"""Suggestions for misspelt names, for every message that asks "did you mean"."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from difflib import get_close_matches

MOST_PROBLEMS = 50
"""Problems of one input that are listed, and suggestions that are worked out for it. Nobody reads more at once."""
# Names that are compared letter by letter, which takes some microseconds each; of longer lists, those that share the most pairs of letters.
_COMPARED = 100
_LONGEST = 100  # letters of a word that are compared


def suggest(word: str, options: Iterable[str], maximum: int = 1) -> str:
    """`did you mean 'x'?` with a space before it, or nothing if no option resembles the word.

    Args:
        maximum: the number of options to name, the most similar first.
    """
    found = similar(word, options, maximum)
    return f" did you mean {' or '.join(repr(option) for option in found)}?" if found else ""


def similar(word: str, options: Iterable[str], maximum: int = 1) -> list[str]:
    """The options that resemble the word, the most similar first."""
    lower = word.lower()[:_LONGEST]
    by_lower = {option.lower()[:_LONGEST]: option for option in options}
    close = get_close_matches(lower, _candidates(lower, list(by_lower)), n=maximum, cutoff=0.6)
    if not close and len(word) > 1:
        # Short forms, such as `kl` for `forward-kl` and `lr` for `learning_rate`, are too far away for a ratio of letters.
        close = [option for option in by_lower if lower == _initials(option) or lower in option][:1]
    return [by_lower[option] for option in close]


def _candidates(word: str, options: list[str]) -> list[str]:
    if len(options) <= _COMPARED:
        return options
    pairs = _pairs(word)
    # Options longer or shorter than this cannot reach the ratio of 0.6.
    fitting = [option for option in options if 0.42 * len(word) <= len(option) <= 2.4 * len(word)]
    return sorted(fitting, key=lambda option: len(pairs & _pairs(option)), reverse=True)[:_COMPARED]


@functools.lru_cache(maxsize=50_000)
def _pairs(word: str) -> frozenset[str]:
    """The pairs of neighbouring letters, with the first and the last letter."""
    return frozenset([word[:1], word[-1:], *(word[place : place + 2] for place in range(len(word) - 1))])


def _initials(name: str) -> str:
    return "".join(part[:1] for part in re.split("[_-]", name))
