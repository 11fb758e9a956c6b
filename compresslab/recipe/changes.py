"""Changes of a recipe by the command line before it is checked: settings by path, and a selection of its variants."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from compresslab.errors import RecipeError
from compresslab.recipe.locate import Located, Problem, brought_by, join, parse, relocate
from compresslab.recipe.order import needs
from compresslab.recipe.schema import Recipe
from compresslab.recipe.steps import BASE
from compresslab.suggestions import suggest


@dataclass(frozen=True)
class Changes:
    """Changes of one recipe.

    Attributes:
        settings: `path=value`, the path as in error messages (`evaluate.items`, `variants.nf4[0].quantize.bits`, also with `.0` for
            `[0]`), the value as in YAML.
        only: the variants to keep, together with those that they need. All if empty.
    """

    settings: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def described(self) -> str:
        """The changes as comments above the recipe in a study's record; "" if there are none."""
        return "".join(f"# --set {setting}\n" for setting in self.settings) + "".join(f"# --only {name}\n" for name in self.only)


NO_CHANGES = Changes()
VARIANT = re.compile(r"variants\..+")
# An entry of a list in a path: [0] as in messages, or .0 as in other tools.
INDEX = re.compile(r"\[(\d+)\]\.?|(\d+)(?:\.|(?=\[)|$)")


class _NoSuchPlaceError(Exception):
    """The path of a setting leads nowhere; the text says why."""


def apply_settings(root: Located, settings: tuple[str, ...]) -> tuple[Located, list[Problem]]:
    """The recipe's tree with the values of the settings at their paths, and a problem for each setting that is no `path=value` or whose
    path does not exist."""
    found = []
    for setting in settings:
        path, equals, text = setting.partition("=")
        value, problems = parse(text)
        try:
            if not equals or not path or value is None or value.value is None or problems:
                raise _NoSuchPlaceError("give a path and a value as in YAML, such as evaluate.items=50")
            root = _replace_at(root, path.strip(), value, setting)
        except _NoSuchPlaceError as error:
            found.append(Problem(0, 0, "", str(error), setting))
    return root, found


def select_variants(recipe: Recipe, only: tuple[str, ...]) -> Recipe:
    """The recipe with these variants and all variants that they need.

    Raises:
        RecipeError: an unknown variant.
    """
    if not only:
        return recipe
    selected, pending = set[str](), list(only)
    dependencies = needs(recipe)
    while pending:
        name = pending.pop()
        if name == BASE or name in selected:
            continue
        if name not in dependencies:
            hint = suggest(name, list(dependencies)) or f" there are: {', '.join(dependencies)}"
            raise RecipeError([f"--only {name}: the recipe has no such variant;{hint}"])
        selected.add(name)
        pending += dependencies[name]
    return recipe.model_copy(update={"variants": {name: variant for name, variant in recipe.variants.items() if name in selected}})


def _replace_at(node: Located, rest: str, value: Located, setting: str) -> Located:
    """The tree below `node` with `value` at the path `rest`. Problems of the value name the setting."""
    if not rest:
        return brought_by(relocate(value, node.path), setting, node.line, node.column)
    if isinstance(node.value, list):
        if (steps := re.match(r"steps(?=[.\[])\.?", rest)) and VARIANT.fullmatch(node.path):
            rest = rest[steps.end() :]  # a variant that is a list is short for one with `steps`
        index = INDEX.match(rest)
        number = int(index[1] or index[2]) if index else len(node.value)
        if index is None or number >= len(node.value):
            raise _NoSuchPlaceError(f"{node.path} is a list of {len(node.value)}; name an entry, such as {node.path}[0]")
        replaced = [_replace_at(child, rest[index.end() :], value, setting) if i == number else child for i, child in enumerate(node.value)]
        return replace(node, value=replaced)
    if not isinstance(node.value, dict):
        raise _NoSuchPlaceError(f"{node.path or 'the recipe'} is a single value, so nothing stands below it")
    key = _next_key(node, rest)
    if not key:
        raise _NoSuchPlaceError(f"{node.path or 'the recipe'} is a mapping; name one of {', '.join(node.value)}")
    child = node.value.get(key) or Located({}, node.line, node.column, join(node.path, key), setting=setting)
    rest = rest[len(key) :].removeprefix(".")
    return replace(
        node, value={**node.value, key: _replace_at(child, rest, value, setting)}, keys={key: (node.line, node.column), **node.keys}
    )


def _next_key(node: Located, rest: str) -> str:
    """The longest key of the mapping with which the path continues, since names may contain dots; else a new key up to the next dot."""
    matching_keys = [key for key in node.mapping if rest == key or rest.startswith((f"{key}.", f"{key}["))]
    if matching_keys:
        return max(matching_keys, key=len)
    new = re.match(r"[^.\[]+", rest)
    return new[0] if new else ""
