"""What a command line changes in a recipe before it is checked: settings by path, and which of its variants are meant."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from compresslab.errors import RecipeError
from compresslab.recipe.locate import Located, join, parse, relocate, suggest
from compresslab.recipe.order import needs
from compresslab.recipe.schema import Recipe
from compresslab.recipe.steps import BASE


@dataclass(frozen=True)
class Changes:
    """Changes of one recipe.

    Attributes:
        settings: `path=value`, the path as complaints show it (`evaluate.items`, `variants.nf4[0].quantize.bits`), the value as in YAML.
        only: the variants that are meant; those that they need come along. All if empty.
    """

    settings: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def described(self) -> str:
        """The changes as the comments that stand above the recipe in a study's record; nothing if there are none."""
        return "".join(f"# --set {setting}\n" for setting in self.settings) + "".join(f"# --only {name}\n" for name in self.only)


NO_CHANGES = Changes()


def changed(root: Located, settings: tuple[str, ...]) -> Located:
    """The recipe's tree with other values at some paths.

    Raises:
        RecipeError: a setting that is no `path=value`, or whose path leads nowhere.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        value, problems = parse(text)
        if not equals or not path or value is None or value.value is None or problems:
            raise _refused(setting, "give a path and a value as in YAML, such as evaluate.items=50")
        root = _put(root, path.strip(), value, setting)
    return root


def kept(recipe: Recipe, only: tuple[str, ...]) -> Recipe:
    """The recipe with these variants and all that they start from or look at.

    Raises:
        RecipeError: there is no such variant.
    """
    if not only:
        return recipe
    wanted, waiting = set[str](), list(only)
    around = needs(recipe)
    while waiting:
        name = waiting.pop()
        if name == BASE or name in wanted:
            continue
        if name not in around:
            hint = suggest(name, list(around)) or f" there are: {', '.join(around)}"
            raise RecipeError([f"--only {name}: the recipe has no such variant;{hint}"])
        wanted.add(name)
        waiting += around[name]
    return recipe.model_copy(update={"variants": {name: variant for name, variant in recipe.variants.items() if name in wanted}})


def _put(node: Located, rest: str, value: Located, setting: str) -> Located:
    """The tree below `node` with `value` at the path `rest`; it stands where the node stands, for complaints."""
    if not rest:
        return replace(relocate(value, node.path), line=node.line, column=node.column)
    if isinstance(node.value, list):
        index = re.match(r"\[(\d+)\]\.?", rest)
        if index is None or int(index[1]) >= len(node.value):
            raise _refused(setting, f"{node.path} is a list of {len(node.value)}; name an entry, such as {node.path}[0]")
        number = int(index[1])
        return replace(
            node, value=[_put(child, rest[index.end() :], value, setting) if i == number else child for i, child in enumerate(node.value)]
        )
    if not isinstance(node.value, dict):
        raise _refused(setting, f"{node.path or 'the recipe'} is a single value, so nothing stands below it")
    key = _next_key(node, rest)
    if not key:
        raise _refused(setting, f"{node.path or 'the recipe'} is a mapping; name one of {', '.join(node.value)}")
    child = node.value.get(key) or Located({}, node.line, node.column, join(node.path, key))
    put = _put(child, rest[len(key) :].removeprefix("."), value, setting)
    return replace(node, value={**node.value, key: put}, keys={key: (node.line, node.column), **node.keys})


def _next_key(node: Located, rest: str) -> str:
    """The longest key of the mapping that the path goes on with, since names may hold dots; else a new key up to the next dot."""
    there = [key for key in node.mapping if rest == key or rest.startswith((f"{key}.", f"{key}["))]
    if there:
        return max(there, key=len)
    new = re.match(r"[^.\[]+", rest)
    return new[0] if new else ""


def _refused(setting: str, why: str) -> RecipeError:
    return RecipeError([f"--set {setting}: {why}"])
