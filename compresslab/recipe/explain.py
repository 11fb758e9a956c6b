"""Turns pydantic's errors into messages in a recipe's terms, with their place in the file.

pydantic reports a location of keys, indices and labels of union members, and a sentence about its own types.
This module follows the location through the recipe's types and the file's tree together. The types show which parts of the
location are labels that are not in the file, and which values are valid there. The messages come from the schema, not from pydantic.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from compresslab.methods.registry import installed, known
from compresslab.methods.settings import StepConfig
from compresslab.recipe.locate import Located, Problem, resolve, shown
from compresslab.recipe.schema import Evaluate, Variant
from compresslab.recipe.steps import STEP_KINDS, Step
from compresslab.suggestions import MOST_PROBLEMS, suggest

# Keys of earlier versions, and their replacement.
MOVED: dict[tuple[Any, str], str] = {(Evaluate, "dtype"): "write `compute:` at the top of the recipe: it holds for all that runs a model"}
_QUOTED_NUMBER = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class _Form:
    """A type with its constraints."""

    type: Any
    constraints: tuple[Any, ...] = ()

    @property
    def discriminator(self) -> str | None:
        """The key that distinguishes the members of a union."""
        found = [item.discriminator for item in self.constraints if isinstance(item, FieldInfo) and item.discriminator]
        return str(found[0]) if found else None

    def bound(self, name: str) -> list[Any]:
        """All values of one constraint, such as `gt`."""
        flat = [part for item in self.constraints for part in ([item, *item.metadata] if isinstance(item, FieldInfo) else [item])]
        return [value for item in flat if (value := getattr(item, name, None)) is not None]


def _form(annotation: Any, constraints: Sequence[Any] = ()) -> _Form:
    """The type without `Annotated` and `| None`, with its constraints."""
    if get_origin(annotation) is Annotated:
        inner, *around = get_args(annotation)
        return _form(inner, [*around, *constraints])
    members = _members(annotation)
    if NoneType in members:
        rest = [member for member in members if member is not NoneType]
        return _form(rest[0] if len(rest) == 1 else Union[tuple(rest)], constraints)  # noqa: UP007
    return _Form(annotation, tuple(constraints))


def _field_form(info: FieldInfo) -> _Form:
    return _form(info.annotation, [info, *info.metadata])


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields by the keys that a recipe uses."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def _tags(union: _Form) -> dict[str, Any]:
    """The settings in the union of a kind's methods, by the name of the method."""
    # A class of settings may list names of methods that are not installed, so the registry has the names.
    members = _members(union.type)
    return {entry.name: entry.config for entry in known() if entry.config in members}


def _or(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def describe(form: _Form) -> str:
    """A description of the values that are valid at a place of the recipe."""
    if description := form.bound("description"):
        return str(description[0])
    if form.type is Step:
        return f"a mapping with one of {_or(STEP_KINDS)}, such as `prune: {{method: depth, keep: 24}}`"
    if form.type is Variant:
        return "a list of steps, or a mapping with 'from' and 'steps'"
    if form.discriminator:
        return f"a mapping with the key '{form.discriminator}' ({_or(list(_tags(form)))})"
    if members := _members(form.type):
        return _or([describe(_form(member)) for member in members])
    if get_origin(form.type) is Literal:
        values = [str(value) for value in get_args(form.type)]
        return f"one of {_or(values)}" if len(values) > 1 else f"'{values[0]}'"
    if _is_model(form.type):
        return f"a mapping with keys among {', '.join(_fields(form.type))}"
    if get_origin(form.type) is list or get_origin(form.type) is dict:
        what = "list" if get_origin(form.type) is list else "mapping"
        return f"a {what} with at least one entry" if form.bound("min_length") else f"a {what}"
    if form.type in (int, float):
        return _number(form)
    if form.type is bool:
        return "true or false"
    return "a text that is not empty" if form.bound("min_length") else "a text"


def _number(form: _Form) -> str:
    whole = form.type is int
    lowest = [*form.bound("ge"), *([value + 1 for value in form.bound("gt")] if whole else [])]
    words = [f"of at least {max(lowest)}"] if lowest else []
    words += [f"above {value}" for value in form.bound("gt") if not whole]
    words += [f"of at most {value}" for value in form.bound("le")]
    words += [f"below {value}" for value in form.bound("lt")]
    return " ".join(["a whole number" if whole else "a number", " and ".join(dict.fromkeys(words))]).rstrip()


def _takes(form: _Form, kind: type) -> bool:
    return form.type is kind or any(_takes(_form(member), kind) for member in _members(form.type))


@dataclass(frozen=True)
class _Place:
    """The place of a pydantic location: the deepest existing node, the form there, and the rest of the location."""

    node: Located
    form: _Form
    rest: tuple[int | str, ...]


Model = TypeVar("Model", bound=BaseModel)


def check(model: type[Model], root: Located, ignored_keys: Sequence[str] = ()) -> tuple[Model | None, list[Problem]]:
    """The tree as the model, or all problems. `ignored_keys` are valid keys that other code reads."""
    values = {key: child.data() for key, child in root.mapping.items() if key not in ignored_keys} if root.mapping else root.data()
    try:
        # Strict mode for JSON has the right rules: no text for a number, no boolean for an integer, but mappings for models.
        return model.model_validate_json(json.dumps(values), strict=True), []
    except ValidationError as error:
        explainer = _Explainer(model, root, list(ignored_keys))
        for details in error.errors(include_url=False, include_input=False):
            explainer.add(details)
        return None, explainer.problems


class _Explainer:
    """Turns pydantic's errors on one tree into problems, one for each place."""

    def __init__(self, model: type[BaseModel], root: Located, ignored_keys: list[str]) -> None:
        self.model, self.root, self.ignored_keys = model, root, ignored_keys
        self._problems: dict[Problem, None] = {}

    def add(self, details: ErrorDetails) -> None:
        """Adds the problem of one error, unless it follows from an earlier one."""
        place = self._follow(details["loc"])
        kind = details["type"]
        problem: Problem | None
        if place.rest[-1:] == ("[key]",):
            problem = self._bad_name(place, details)
        elif kind == "extra_forbidden":
            problem = self._unknown_key(place, str(place.rest[0]))
        elif kind == "missing":
            problem = self._missing_key(place, str(place.rest[0]))
        elif kind == "union_tag_not_found":
            problem = self._missing_method(place)
        elif place.node.has_gap:
            return
        elif kind == "union_tag_invalid":
            problem = self._unknown_method(place)
        elif kind == "value_error":
            problem = place.node.problem(_check_message(details))
        else:
            problem = place.node.problem(_wrong_value(place))
        if problem is not None:
            self._problems[problem] = None

    @property
    def problems(self) -> list[Problem]:
        """The different problems, in the order of pydantic's errors."""
        return list(self._problems)

    def _suggest(self, word: str, options: Sequence[str]) -> str:
        """A suggestion, unless so many problems were found that nobody reads it."""
        return suggest(word, options) if len(self._problems) < MOST_PROBLEMS else ""

    def _follow(self, loc: tuple[int | str, ...]) -> _Place:
        node, form, rest = self.root, _Form(self.model), list(loc)
        while rest:
            step = rest[0]
            if form.discriminator:
                # The label of the union's member is in pydantic's location and not in the file.
                if (member := _tags(form).get(str(step))) is None:
                    break
                form = _Form(member)
            elif _is_model(form.type) and isinstance(step, str) and step in node.mapping and step in _fields(form.type):
                node, form = node.mapping[step], _field_form(_fields(form.type)[step])
            elif get_origin(form.type) is dict and step in node.mapping and rest[1:2] != ["[key]"]:
                node, form = node.mapping[str(step)], _form(get_args(form.type)[1])
            elif get_origin(form.type) is list and isinstance(step, int) and step < len(node.items):
                node, form = node.items[step], _form(get_args(form.type)[0])
            else:
                break
            rest.pop(0)
        return _Place(node, form, tuple(rest))

    def _known(self, place: _Place) -> list[str]:
        return [*_fields(place.form.type), *(self.ignored_keys if place.node is self.root else [])]

    def _unknown_key(self, place: _Place, key: str) -> Problem:
        known = self._known(place)
        if place.form.type is Variant and key in STEP_KINDS:
            return place.node.key_problem(key, f"a step stands where a variant belongs; make it a list of steps, as in `- {key}: …`")
        if (replacement := MOVED.get((place.form.type, key))) is not None:
            return place.node.key_problem(key, f"{key} is no setting here any more; {replacement}")
        if key == "replicates" and _is_model(place.form.type) and issubclass(place.form.type, StepConfig):
            return place.node.key_problem(key, "replicates stands beside the step's kind, as in `{distill: {…}, replicates: 3}`")
        message = f"unknown key {shown(key)};{self._suggest(key, known) or ' remove it;'} known here: {', '.join(known)}"
        return place.node.key_problem(key, message)

    def _missing_key(self, place: _Place, key: str) -> Problem | None:
        known = self._known(place)
        unknown = [other for other in place.node.mapping if other not in known]
        if any(suggest(other, known) == suggest(key, [key]) for other in unknown[:MOST_PROBLEMS]):
            return None  # The key is misspelt, which is a problem of its own.
        if place.form.type is Variant and any(kind in place.node.mapping for kind in STEP_KINDS):
            return None
        return place.node.problem(f"the key '{key}' is missing; add it with {describe(_field_form(_fields(place.form.type)[key]))}")

    def _missing_method(self, place: _Place) -> Problem | None:
        key = place.form.discriminator or ""
        if key in place.node.mapping:
            return None if place.node.has_gap else place.node.mapping[key].problem(f"give one of {_or(list(_tags(place.form)))}")
        for other in list(place.node.mapping)[:MOST_PROBLEMS]:
            if hint := suggest(other, [key]):
                return place.node.key_problem(other, f"unknown key {shown(other)};{hint}")
        return place.node.problem(f"the key '{key}' is missing; add it with {_or(list(_tags(place.form)))}")

    def _unknown_method(self, place: _Place) -> Problem:
        node, names = place.node.mapping[place.form.discriminator or ""], list(_tags(place.form))
        broken = installed().broken
        if reason := broken.get(str(node.value)):
            return node.problem(f"the installed method {_describe_value(node)} cannot be used: {reason}; give {_or(names)}")
        # The name of an entry point need not be that of its method.
        others = "".join(f"; the installed method {name!r} cannot be used: {reason}" for name, reason in broken.items())
        hint = self._suggest(node.text, names)
        return node.problem(f"unknown {place.form.discriminator} {_describe_value(node)};{hint} give {_or(names)}{others}")

    def _bad_name(self, place: _Place, details: ErrorDetails) -> Problem:
        key = str(place.rest[0])
        message = _check_message(details)
        if details["type"] != "value_error":
            message = f"{shown(key)} cannot be a name here; give {describe(_form(get_args(place.form.type)[0]))}"
            if _PLACEHOLDER.search(key):
                message += "; a name with {…} belongs under 'sweeps'"
        return place.node.key_problem(key, message)


def _check_message(details: ErrorDetails) -> str:
    """The message of a `ValueError` from one of the schema's own checks."""
    return str(details.get("ctx", {}).get("error", ""))


def _describe_value(node: Located) -> str:
    if isinstance(node.value, bool):
        return f"{node.text} (a yes/no value)"
    if isinstance(node.value, str):
        return shown(node.value)
    if isinstance(node.value, list | dict):
        return "a list" if isinstance(node.value, list) else "a mapping"
    return node.text


def _wrong_value(place: _Place) -> str:
    node, form = place.node, place.form
    empty = isinstance(node.value, list | dict) and not node.value
    value_text = f"{_describe_value(node)} without entries" if empty else _describe_value(node)
    message = f"{value_text} does not fit here; give {describe(form)}"
    literals = [str(value) for value in get_args(form.type)] if get_origin(form.type) is Literal else []
    numeric = _takes(form, int) or _takes(form, float) or any(literal.isdigit() for literal in literals)
    if isinstance(node.value, str):
        if _PLACEHOLDER.search(node.value):
            return f"{message}; a placeholder works only under 'sweeps'"
        if numeric and _QUOTED_NUMBER.fullmatch(node.value):
            is_number = isinstance(resolve(node.value), int | float)
            return f"{message}, {'without quotes' if is_number else 'without leading zeros and stray underscores'}"
        if len(literals) > 1:
            return message + ";" * bool(guess := suggest(node.value, literals)) + guess
        if get_origin(form.type) is list and node.value:
            return f"{message}, such as [{node.value[:40]}]"
    elif isinstance(node.value, float) and node.value.is_integer() and _takes(form, int) and not _takes(form, float):
        return f"{message}, such as {int(node.value)}"
    elif form.type is str and not isinstance(node.value, list | dict):
        return f"{message}, in quotes"
    return message
