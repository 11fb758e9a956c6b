"""Which of the imported models comes from which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from compresslab.errors import BadInput
from compresslab.recipe.steps import BASE


class Lineage(NamedTuple):
    """The models of a study, parents first.

    Attributes:
        root: the model that all others come from, whose variant is `base`. parents: of every other model.
        copies: models that are copies of their parents' weights.
    """

    root: str
    order: tuple[str, ...]
    parents: Mapping[str, str]
    copies: frozenset[str]

    def variant(self, model: str) -> str:
        """The name of a model's variant."""
        return BASE if model == self.root else model

    def parent_variant(self, model: str) -> str:
        """The name of the variant that a model comes from; "" for the root."""
        return "" if model == self.root else self.variant(self.parents[model])


def lineage_of(names: Sequence[str], stated: Sequence[str], copies: Sequence[str]) -> Lineage:
    """The lineage from `--parent NAME`, `--parent CHILD=NAME` and `--copy NAME`.

    Raises:
        BadInput: fewer than two models, a name that none has, no single root, or a circle.
    """
    if len(names) < 2:
        raise BadInput(f"all files are of one model, {names[0]}; a study compares it with its parent, so name the parent's results, too")
    known = f"there are {', '.join(names)}"
    roots = [text for text in stated if "=" not in text]
    parents = dict(text.split("=", 1) for text in stated if "=" in text)
    for name in (*roots, *parents, *parents.values(), *copies):
        if name not in names:
            raise BadInput(f"no model is called {name}; {known}")
    if len(parents) < sum("=" in text for text in stated):
        raise BadInput("--parent names two parents of one model; keep one")
    if len(set(roots)) > 1:
        raise BadInput(f"--parent {' --parent '.join(roots)}: one is the parent of all others; write --parent CHILD=PARENT for the rest")
    without = [name for name in names if name not in parents]
    if roots:
        root = roots[0]
    elif len(without) == 1:
        root = without[0]
    else:
        raise BadInput(f"which model is the parent? Add --parent NAME; {known}")
    if root in parents:
        raise BadInput(f"--parent {root}: the parent of all has a parent itself ({parents[root]}); leave one of the two out")
    for name in names:
        if name != root:
            parents.setdefault(name, root)
    if any(name.lower() == BASE for name in parents):
        raise BadInput(f"a study calls its first model {BASE}, so a child needs another name; write NAME=FILE before its results")
    order = [root]
    while len(order) < len(names):
        following = [name for name in names if name not in order and parents[name] in order]
        if not following:
            raise BadInput(f"--parent: {', '.join(name for name in names if name not in order)} come from one another in a circle")
        order += following
    if root in copies:
        raise BadInput(f"--copy {root}: it is the parent of all, and no copy of another")
    return Lineage(root, tuple(order), parents, frozenset(copies))
