"""Where names go inside a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compresslab.report import words

Pixel = tuple[float, float]
"""A place inside a plot, in pixels from its upper left corner."""


def place_labels(
    names: Sequence[tuple[str, bool]], pixels: dict[str, Pixel], links: Sequence[tuple[Pixel, Pixel]], width: float, height: float
) -> dict[str, tuple[str, float, float]]:
    """Give each name a free place around its mark, off the lines if it can be; what fits nowhere is left out (the tables name all).

    Args:
        names: with whether they are less important, and so placed last. pixels: the marks, by name. links: lines that names had better not
            cover.

    Returns:
        By name: the text, clipped or empty, and where it begins, by its left end's middle.
    """
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in pixels.values()]
    lines = []
    for (x, y), (x2, y2) in links:
        steps = max(1, int(math.hypot(x2 - x, y2 - y) / 7))
        lines += [(x + (x2 - x) * step / steps, y + (y2 - y) * step / steps) for step in range(steps)]
    placed: dict[str, tuple[str, float, float]] = {}
    for name, _ in sorted(names, key=lambda one: one[1]):
        x, y = pixels[name]
        text = words.clip(name, 24)
        wide = 5.9 * len(text)
        sides = [(x + 9, y), (x - 9 - wide, y), (x + 6, y - 12), (x + 6, y + 12), (x - 6 - wide, y - 12), (x - 6 - wide, y + 12)]
        sides += [(x - wide / 2, y - 15), (x - wide / 2, y + 15)]
        boxes = [(left, middle - 6, left + wide, middle + 6) for left, middle in sides]
        free = [box for box in boxes if _inside(box, width, height) and not any(_overlap(box, other) for other in taken)]
        placed[name] = ("", x, y)
        if free:
            box = min(free, key=lambda one: sum(one[0] < px < one[2] and one[1] < py < one[3] for px, py in lines))
            taken.append(box)
            placed[name] = (text, box[0], (box[1] + box[3]) / 2)
    return placed


def _inside(box: tuple[float, float, float, float], width: float, height: float) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
