"""The graph of `from`, `teacher` and `until` between variants: its cycles, and an order with parents first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compresslab.errors import BadInput
from compresslab.recipe.schema import Recipe


def needs(recipe: Recipe) -> dict[str, list[str]]:
    """For each variant the names that it needs, including `base`: the one that it starts from, then those that its steps read."""
    return {
        name: list(dict.fromkeys([variant.start, *(step.other_variant for step in variant.steps if step.other_variant is not None)]))
        for name, variant in recipe.variants.items()
    }


def ordered(recipe: Recipe) -> list[str]:
    """The variants' names, each after those that it needs, otherwise in the recipe's order, without `base`.

    Raises:
        BadInput: an unknown name or a cycle. A recipe from `recipe.load` has neither.
    """
    dependencies = needs(recipe)
    for name, others in dependencies.items():
        for other in others:
            if other != "base" and other not in dependencies:
                raise BadInput(f"variant '{name}' needs '{other}', which is neither 'base' nor a variant of the study")
    order, cycles = sort(dependencies)
    if cycles:
        raise BadInput(f"the variants need one another in a circle: {' -> '.join(cycles[0])}")
    return order


def sort(dependencies: Mapping[str, Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """An order with parents first, and the cycles (each as names with the first one again at the end).

    Names that are no key of `dependencies` are skipped. It has no recursion, because chains may be long.
    """
    order: list[str] = []
    cycles: list[list[str]] = []
    done: set[str] = set()
    for start in dependencies:
        path = {start: iter(dependencies[start])} if start not in done else {}
        while path:
            name = next(reversed(path))
            other = next(path[name], None)
            if other is None:
                path.popitem()
                done.add(name)
                order.append(name)
            elif other in path:
                names = list(path)
                cycles.append([*names[names.index(other) :], other])
            elif other in dependencies and other not in done:
                path[other] = iter(dependencies[other])
    return order, cycles
