"""Where the values of a recipe stand in its file, for complaints that only the plan can make."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

from compresslab.errors import RecipeError
from compresslab.recipe.locate import Located, Problem, join

Path = tuple[str | int, ...]


class Complaint(NamedTuple):
    """Something wrong at a path of the recipe, such as `("variants", "depth-24", "steps", 0, "prune", "keep")`."""

    path: Path
    message: str


class Places(NamedTuple):
    """The tree of a recipe's file with all variants in one mapping; those of a sweep stand where its template does."""

    name: str
    root: Located

    def problem(self, complaint: Complaint) -> Problem:
        """The complaint at the value that it is about, or at the nearest one around it that the file has."""
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
        return Problem(node.line, node.column, reduce(join, rest, node.path), f"{self._point(complaint.path)}{complaint.message}")

    def _point(self, path: Path) -> str:
        """For a variant of a sweep its name, since all points of the grid stand in one place."""
        section, name, *_ = (*path, "", "")
        body = self.root.mapping["variants"].mapping.get(str(name)) if section == "variants" and "variants" in self.root.mapping else None
        return f"{name}: " if body is not None and body.path.startswith("sweeps") else ""


def refusal(complaints: Iterable[Complaint], places: Places | None) -> RecipeError:
    """The error that lists all complaints: in the file's order with their places, or by path alone without a file."""
    if places is None:
        return RecipeError(list(dict.fromkeys(f"{reduce(join, path, '')}: {message}" for path, message in complaints)))
    return RecipeError([problem.shown(places.name) for problem in sorted({places.problem(complaint) for complaint in complaints})])
