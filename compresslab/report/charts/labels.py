"""Placement of names inside a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compresslab.report import words

Pixel = tuple[float, float]
"""A position inside a plot, in pixels from its upper left corner."""


def place_labels(
    names: Sequence[tuple[str, bool]], pixels: dict[str, Pixel], links: Sequence[tuple[Pixel, Pixel]], width: float, height: float
) -> dict[str, tuple[str, float, float]]:
    """Give each name a free position near its mark, preferably off the lines. A name that fits nowhere is left out.

    Args:
        names: each with whether it is less important, and so placed last. pixels: the marks, by name. links: lines to avoid.

    Returns:
        By name: the text, truncated or empty, and the position of the middle of its left edge.
    """
    occupied = [(x - 6, y - 6, x + 6, y + 6) for x, y in pixels.values()]
    lines = []
    for (x, y), (x2, y2) in links:
        steps = max(1, int(math.hypot(x2 - x, y2 - y) / 7))
        lines += [(x + (x2 - x) * step / steps, y + (y2 - y) * step / steps) for step in range(steps)]
    placed: dict[str, tuple[str, float, float]] = {}
    for name, _ in sorted(names, key=lambda name: name[1]):
        x, y = pixels[name]
        text = words.truncate(name, 24)
        text_width = 5.9 * len(text)
        sides = [
            (x + 9, y),
            (x - 9 - text_width, y),
            (x + 6, y - 12),
            (x + 6, y + 12),
            (x - 6 - text_width, y - 12),
            (x - 6 - text_width, y + 12),
        ]
        sides += [(x - text_width / 2, y - 15), (x - text_width / 2, y + 15)]
        boxes = [(left, middle - 6, left + text_width, middle + 6) for left, middle in sides]
        free = [box for box in boxes if _inside(box, width, height) and not any(_overlap(box, other) for other in occupied)]
        placed[name] = ("", x, y)
        if free:
            box = min(free, key=lambda box: sum(box[0] < px < box[2] and box[1] < py < box[3] for px, py in lines))
            occupied.append(box)
            placed[name] = (text, box[0], (box[1] + box[3]) / 2)
    return placed


def _inside(box: tuple[float, float, float, float], width: float, height: float) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height


def _overlap(box: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
