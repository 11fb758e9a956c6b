"""Checks settings that a program passes as plain values, with the messages of a recipe's errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel

from compresslab.errors import BadInput
from compresslab.recipe.explain import check
from compresslab.recipe.locate import MAX_DEPTH, Located, join

Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], values: Mapping[str, object], argument: str) -> Model:
    """The values as the model.

    Args:
        argument: name of the argument with these values, for the message.

    Raises:
        BadInput: one line per problem: the path of the value, the problem, and what to do.
    """
    result, problems = check(model, _located(values, argument, 0))
    if result is None or problems:
        raise BadInput("\n".join(dict.fromkeys(f"{problem.path}: {problem.message}" for problem in problems)))
    return result


def _located(value: object, path: str, depth: int) -> Located:
    """The values as a tree with paths. Lines and columns are 0, because there is no file."""
    if depth > MAX_DEPTH:
        raise BadInput(f"{path}: nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        return Located({str(key): _located(entry, join(path, str(key)), depth + 1) for key, entry in value.items()}, 0, 0, path)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return Located([_located(entry, join(path, number), depth + 1) for number, entry in enumerate(value)], 0, 0, path)
    if value is not None and not isinstance(value, str | int | float | bool):
        raise BadInput(f"{path}: {type(value).__name__} is no value of a recipe; give a number, a text, a list or a mapping")
    return Located(value, 0, 0, path, value if isinstance(value, str) else json.dumps(value))
