"""Checks settings that a program passes as plain values, with the messages of a recipe's errors."""

from __future__ import annotations

import json
import numbers
from collections.abc import Iterator, Mapping, Sequence
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
    root = _located(values, argument, 0)
    result, problems = check(model, root)
    lines = [f"{problem.path}: {problem.message}" for problem in problems]
    if result is None and not lines:
        lines = [f"{path}: None is no value of a recipe; give a value or leave it out" for path in _gaps(root)]
    if result is None or lines:
        raise BadInput("\n".join(dict.fromkeys(lines)))
    return result


def _gaps(node: Located) -> Iterator[str]:
    """The paths of values that are `None`."""
    if node.value is None:
        yield node.path
    for child in (*node.mapping.values(), *node.items):
        yield from _gaps(child)


def _located(value: object, path: str, depth: int) -> Located:
    """The values as a tree with paths. Lines and columns are 0, because there is no file."""
    if depth > MAX_DEPTH:
        raise BadInput(f"{path}: nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        return Located({str(key): _located(entry, join(path, str(key)), depth + 1) for key, entry in value.items()}, 0, 0, path)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return Located([_located(entry, join(path, number), depth + 1) for number, entry in enumerate(value)], 0, 0, path)
    if isinstance(value, numbers.Number) and not isinstance(value, int | float):
        value = int(value) if isinstance(value, numbers.Integral) else float(value) if isinstance(value, numbers.Real) else value  # numpy's
    if value is not None and not isinstance(value, str | int | float | bool):
        raise BadInput(f"{path}: {type(value).__name__} is no value of a recipe; give a number, a text, a list or a mapping")
    return Located(value, 0, 0, path, value if isinstance(value, str) else json.dumps(value))
