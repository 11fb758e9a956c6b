"""The places of a recipe's values in its file, for problems that only the plan finds."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

from compresslab.errors import RecipeError
from compresslab.recipe.locate import Located, Problem, join

Path = tuple[str | int, ...]


class Complaint(NamedTuple):
    """A problem at a path of the recipe, such as `("variants", "depth-24", "steps", 0, "prune", "keep")`."""

    path: Path
    message: str


class Places(NamedTuple):
    """The tree of a recipe's file with all variants in one mapping; those of a sweep have the place of its template."""

    name: str
    root: Located

    def problem(self, complaint: Complaint) -> Problem:
        """The complaint with the place of its value, or of the nearest enclosing value in the file."""
        node, rest = self.root, list(complaint.path)
        while rest:
            step = rest[0]
            if isinstance(step, int) and step < len(node.items):
                node = node.items[step]
            elif isinstance(step, str) and step in node.mapping:
                node = node.mapping[step]
            else:
                break
            rest.pop(0)
        message = f"{self._point(complaint.path)}{complaint.message}"
        return Problem(node.line, node.column, reduce(join, rest, node.path), message, node.setting)

    def _point(self, path: Path) -> str:
        """The name of a sweep's variant, because all points of its grid have one place; else ""."""
        section, name, *_ = (*path, "", "")
        body = self.root.mapping["variants"].mapping.get(str(name)) if section == "variants" and "variants" in self.root.mapping else None
        return f"{name}: " if body is not None and body.path.startswith("sweeps") else ""


def refusal(complaints: Iterable[Complaint], places: Places | None) -> RecipeError:
    """The error with all complaints: with their places in the file's order, or by path alone without a file."""
    if places is None:
        return RecipeError(list(dict.fromkeys(f"{reduce(join, path, '')}: {message}" for path, message in complaints)))
    return RecipeError([problem.shown(places.name) for problem in sorted({places.problem(complaint) for complaint in complaints})])
