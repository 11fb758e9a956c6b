"""Settings that a program gives as plain values, checked and refused in the words of a recipe's errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel

from compresslab.errors import BadInput
from compresslab.recipe.explain import check
from compresslab.recipe.locate import MAX_DEPTH, Located, join

Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], given: Mapping[str, object], what: str) -> Model:
    """The values as the model.

    Args:
        what: the argument that they were given as, for the message.

    Raises:
        BadInput: one line for each problem: the path of the value, what is wrong with it, and what to do.
    """
    found, problems = check(model, _located(given, what, 0))
    if found is None or problems:
        raise BadInput("\n".join(dict.fromkeys(f"{problem.path}: {problem.message}" for problem in problems)))
    return found


def _located(value: object, path: str, depth: int) -> Located:
    """The values as a tree of paths. Lines and columns are 0, since there is no file."""
    if depth > MAX_DEPTH:
        raise BadInput(f"{path}: nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        return Located({str(key): _located(one, join(path, str(key)), depth + 1) for key, one in value.items()}, 0, 0, path)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return Located([_located(one, join(path, number), depth + 1) for number, one in enumerate(value)], 0, 0, path)
    if value is not None and not isinstance(value, str | int | float | bool):
        raise BadInput(f"{path}: {type(value).__name__} is no value of a recipe; give a number, a text, a list or a mapping")
    return Located(value, 0, 0, path, value if isinstance(value, str) else json.dumps(value))
