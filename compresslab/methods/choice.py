"""The type of a step's settings: those of all methods of its kind, told apart by `method`."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticKnownError

from compresslab.methods.method import Method, names_of


def choice_of(methods: Sequence[Method[Any]]) -> Any:
    """The settings of methods of one kind. Without `method` they are those of the kind's default, if one class of settings has one.

    A class may list names of methods that are not among `methods`. These are refused like names that no class lists.
    """
    classes = tuple(dict.fromkeys(entry.config for entry in methods))
    names = [entry.name for entry in methods]
    absent = [name for config in classes for name in names_of(config) if name not in names]
    default = next((config.model_fields["method"].default for config in classes if not config.model_fields["method"].is_required()), None)
    choice: Any = functools.reduce(operator.or_, classes)
    if len(classes) > 1:
        choice = Annotated[choice, Field(discriminator="method")]
        choice = choice if default is None else Annotated[choice, BeforeValidator(_with_method(default))]
    return Annotated[choice, BeforeValidator(_refusing(absent, names))] if absent else choice


def _with_method(default: str) -> Any:
    return lambda given: {"method": default, **given} if isinstance(given, dict) else given


def _refusing(absent: list[str], names: list[str]) -> Any:
    def check(given: Any) -> Any:
        name = given.get("method") if isinstance(given, dict) else None
        if name in absent:
            told = {"discriminator": "'method'", "tag": str(name), "expected_tags": ", ".join(map(repr, names))}
            raise PydanticKnownError("union_tag_invalid", told)
        return given

    return check
