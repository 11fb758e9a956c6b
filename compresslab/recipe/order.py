"""Which variant needs which: the graph of `from`, `teacher` and `until`, its circles, and an order with parents first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compresslab.errors import BadInput
from compresslab.recipe.schema import Recipe


def needs(recipe: Recipe) -> dict[str, list[str]]:
    """For each variant the names that must exist before it: what it starts from, then what its steps look at. `base` is included."""
    return {
        name: list(dict.fromkeys([variant.start, *(step.other_variant for step in variant.steps if step.other_variant is not None)]))
        for name, variant in recipe.variants.items()
    }


def ordered(recipe: Recipe) -> list[str]:
    """The variants' names such that every variant comes after what it starts from and what its steps look at.

    Apart from that the recipe's own order stays. `base` is not in the list. A recipe from `recipe.load` always has such
    an order; for one built in code that has none, `BadInput` names the cause.
    """
    wanted = needs(recipe)
    for name, others in wanted.items():
        for other in others:
            if other != "base" and other not in wanted:
                raise BadInput(f"variant '{name}' needs '{other}', which is neither 'base' nor a variant of the study")
    order, circles = sort(wanted)
    if circles:
        raise BadInput(f"the variants need one another in a circle: {' -> '.join(circles[0])}")
    return order


def sort(wanted: Mapping[str, Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Parents first, and the circles met on the way (each as names with the first one again at the end).

    Names that are no key of `wanted` are passed over. Written without recursion: chains may be long.
    """
    order: list[str] = []
    circles: list[list[str]] = []
    done: set[str] = set()
    for start in wanted:
        path = {start: iter(wanted[start])} if start not in done else {}
        while path:
            name = next(reversed(path))
            other = next(path[name], None)
            if other is None:
                path.popitem()
                done.add(name)
                order.append(name)
            elif other in path:
                names = list(path)
                circles.append([*names[names.index(other) :], other])
            elif other in wanted and other not in done:
                path[other] = iter(wanted[other])
    return order, circles
