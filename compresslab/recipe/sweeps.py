"""Sweeps: a template and a grid become one variant for each point of the grid, before validation.

`{key}` in the sweep's name, its `from` and its steps is replaced by the point's value. A text that is only `{key}`
becomes the value itself, with its type; inside a longer text the value is inserted as written in the grid. The new
variants keep the template's places, so that a message points at the line to correct.
"""

from __future__ import annotations

import fnmatch
import glob
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import replace

from compresslab.recipe.explain import check
from compresslab.recipe.locate import KEY_NAME, Located, Problem, shown
from compresslab.recipe.schema import Sweep
from compresslab.suggestions import suggest

MAX_POINTS = 500
PLACEHOLDER = re.compile(r"\{\s*([A-Za-z_][A-Za-z0-9_-]*)\s*\}")


def expand(sweeps: Located, name: str) -> tuple[list[tuple[str, Located]], list[Problem]]:
    """The variants of one sweep as (name, tree), or the problems of its grid and its placeholders."""
    template = sweeps.mapping[name]
    sweep, problems = check(Sweep, template)
    if sweep is None:
        return [], problems
    grid = template.mapping["grid"]
    problems = [*_grid_problems(grid), *_placeholder_problems(sweeps, name)]
    if problems:
        return [], problems
    body = replace(template, value={key: child for key, child in template.mapping.items() if key != "grid"})
    variants = []
    for point in itertools.product(*(values.items for values in grid.mapping.values())):
        values = dict(zip(grid.mapping, point, strict=True))
        variants.append((_substitute(name, values), _fill(body, values)))
    return variants, _duplicate_names(sweeps, name, [variant for variant, _ in variants])


def pattern(name: str) -> re.Pattern[str]:
    """A pattern of the variants' names, for a sweep that could not be expanded."""
    fixed = PLACEHOLDER.split(name)[::2]
    # A shell pattern's expression does not backtrack into what an earlier `*` matched: names may have many placeholders.
    return re.compile(fnmatch.translate("*".join(map(glob.escape, fixed))))


def _grid_problems(grid: Located) -> Iterator[Problem]:
    for key, values in grid.mapping.items():
        if not KEY_NAME.fullmatch(key):
            yield grid.key_problem(key, f"{shown(key)} cannot be a grid key; give letters, digits, '_' and '-', beginning with a letter")
        for value in values.items:
            if isinstance(value.value, list | dict):
                yield value.problem("a list or a mapping cannot be a grid value; give a number, a text or true/false")
    points = math.prod(len(values.items) for values in grid.mapping.values())
    if points > MAX_POINTS:
        yield grid.problem(f"the grid has {points} points; give at most {MAX_POINTS}")


def _placeholder_problems(sweeps: Located, name: str) -> Iterator[Problem]:
    template = sweeps.mapping[name]
    keys = list(template.mapping["grid"].mapping)
    in_name, used = set(), set()
    for key in dict.fromkeys(PLACEHOLDER.findall(name)):
        in_name |= _candidate_keys(key, keys)
        if key not in keys:
            yield sweeps.key_problem(name, _unknown(key, keys))
    for part in ("from", "steps"):
        for leaf in _texts(template.mapping[part]) if part in template.mapping else ():
            for key in PLACEHOLDER.findall(str(leaf.value)):
                used |= _candidate_keys(key, keys)
                if key not in keys:
                    yield leaf.problem(_unknown(key, keys))
    for key in filter(KEY_NAME.fullmatch, keys):
        if key not in in_name:
            yield sweeps.key_problem(name, f"the name lacks {{{key}}}; every grid key stands in it, so that the variants' names differ")
        if key not in used:
            grid = template.mapping["grid"]
            yield grid.key_problem(key, f"{{{key}}} stands nowhere in 'from' or 'steps'; use it there (in quotes) or remove it here")


def _candidate_keys(key: str, keys: list[str]) -> set[str]:
    """The grid keys that a placeholder may refer to. A misspelt placeholder counts as similar keys, to avoid a second problem."""
    return {key} if key in keys else {other for other in keys if suggest(key, [other])}


def _unknown(key: str, keys: list[str]) -> str:
    return f"the placeholder {{{key}}} is not in the grid;{suggest(key, keys)} the grid has: {', '.join(keys)}"


def _texts(node: Located) -> Iterator[Located]:
    """All texts. `{keep}` without quotes is included, because the reader has reported it."""
    children = [*node.mapping.values(), *node.items]
    if node.style == "flow" and node.has_gap:
        yield from (replace(node, value=f"{{{key}}}") for key in node.mapping)
    elif isinstance(node.value, str):
        yield node
    for child in children:
        yield from _texts(child)


def _duplicate_names(sweeps: Located, name: str, names: list[str]) -> list[Problem]:
    duplicates = sorted({other for other in names if names.count(other) > 1})
    return [
        sweeps.key_problem(name, f"two points of the grid give the name {shown(other)}; remove the repeated value") for other in duplicates
    ]


def _substitute(text: str, values: dict[str, Located]) -> str:
    return PLACEHOLDER.sub(lambda match: values[match[1]].text, text)


def _fill(node: Located, values: dict[str, Located]) -> Located:
    if isinstance(node.value, dict):
        return replace(node, value={key: _fill(child, values) for key, child in node.value.items()})
    if isinstance(node.value, list):
        return replace(node, value=[_fill(child, values) for child in node.value])
    if not isinstance(node.value, str) or not PLACEHOLDER.search(node.value):
        return node
    if match := PLACEHOLDER.fullmatch(node.value):
        value = values[match[1]]
        return replace(node, value=value.value, text=value.text, style=value.style, setting=value.setting or node.setting)
    text = _substitute(node.value, values)
    settings = [values[key].setting for key in PLACEHOLDER.findall(node.value)]
    return replace(node, value=text, text=text, style="quoted", setting=next(filter(None, settings), node.setting))
