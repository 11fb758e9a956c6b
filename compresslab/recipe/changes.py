"""Changes of a recipe by the command line before it is checked: settings by path, and a selection of its variants."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from compresslab.errors import RecipeError
from compresslab.recipe.locate import Located, join, parse, relocate
from compresslab.recipe.order import needs
from compresslab.recipe.schema import Recipe
from compresslab.recipe.steps import BASE
from compresslab.suggestions import suggest


@dataclass(frozen=True)
class Changes:
    """Changes of one recipe.

    Attributes:
        settings: `path=value`, the path as in error messages (`evaluate.items`, `variants.nf4[0].quantize.bits`), the value as in YAML.
        only: the variants to keep, together with those that they need. All if empty.
    """

    settings: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def described(self) -> str:
        """The changes as comments above the recipe in a study's record; "" if there are none."""
        return "".join(f"# --set {setting}\n" for setting in self.settings) + "".join(f"# --only {name}\n" for name in self.only)


NO_CHANGES = Changes()


def apply_settings(root: Located, settings: tuple[str, ...]) -> Located:
    """The recipe's tree with the values of the settings at their paths.

    Raises:
        RecipeError: a setting that is no `path=value`, or whose path does not exist.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        value, problems = parse(text)
        if not equals or not path or value is None or value.value is None or problems:
            raise _setting_error(setting, "give a path and a value as in YAML, such as evaluate.items=50")
        root = _replace_at(root, path.strip(), value, setting)
    return root


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
    """The tree below `node` with `value` at the path `rest`. The value has the line of the node that it replaces, for messages."""
    if not rest:
        return replace(relocate(value, node.path), line=node.line, column=node.column)
    if isinstance(node.value, list):
        index = re.match(r"\[(\d+)\]\.?", rest)
        if index is None or int(index[1]) >= len(node.value):
            raise _setting_error(setting, f"{node.path} is a list of {len(node.value)}; name an entry, such as {node.path}[0]")
        number = int(index[1])
        return replace(
            node,
            value=[_replace_at(child, rest[index.end() :], value, setting) if i == number else child for i, child in enumerate(node.value)],
        )
    if not isinstance(node.value, dict):
        raise _setting_error(setting, f"{node.path or 'the recipe'} is a single value, so nothing stands below it")
    key = _next_key(node, rest)
    if not key:
        raise _setting_error(setting, f"{node.path or 'the recipe'} is a mapping; name one of {', '.join(node.value)}")
    child = node.value.get(key) or Located({}, node.line, node.column, join(node.path, key))
    replaced = _replace_at(child, rest[len(key) :].removeprefix("."), value, setting)
    return replace(node, value={**node.value, key: replaced}, keys={key: (node.line, node.column), **node.keys})


def _next_key(node: Located, rest: str) -> str:
    """The longest key of the mapping with which the path continues, since names may contain dots; else a new key up to the next dot."""
    matching_keys = [key for key in node.mapping if rest == key or rest.startswith((f"{key}.", f"{key}["))]
    if matching_keys:
        return max(matching_keys, key=len)
    new = re.match(r"[^.\[]+", rest)
    return new[0] if new else ""


def _setting_error(setting: str, reason: str) -> RecipeError:
    return RecipeError([f"--set {setting}: {reason}"])
