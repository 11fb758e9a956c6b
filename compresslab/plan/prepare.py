"""From a recipe's file to a plan, for the command line and for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compresslab.catalog.hardware import THIS_MACHINE, load_hardware
from compresslab.catalog.references import is_file, unknown_reference
from compresslab.errors import BadInput, RecipeError
from compresslab.machine.this_machine import Machine, ProbedMachine, last_run, machine_for, probed
from compresslab.plan.build import build
from compresslab.plan.graph import Plan
from compresslab.plan.resolve import ResolvedRecipe
from compresslab.recipe.changes import NO_CHANGES, Changes
from compresslab.recipe.load import ReadRecipe, read
from compresslab.recipe.places import Complaint
from compresslab.recipe.places import Path as Place
from compresslab.recipe.schema import Recipe
from compresslab.records import StudyNote

# Takes the place of a name or a list that is missing or wrong, and is never complained about itself.
STAND_INS: dict[Place, Any] = {("study",): "study", ("evaluate",): {"tasks": ["arc_easy"]}, ("evaluate", "tasks"): ["arc_easy"]}
# A mapping may have a problem that shows only when those of its entries are gone.
ROUNDS = 5


def prepare(
    path: Path,
    changes: Changes = NO_CHANGES,
    device: str | None = None,
    noted: Mapping[str, StudyNote] | None = None,
    *,
    machine: ProbedMachine | None = None,
    trust_code: bool = False,
) -> Plan:
    """Load, check and plan a recipe, with the changes of a command line, without importing torch.

    Args:
        device: the device to compute on, by torch's name; without it, the one that this machine chooses.
        noted: the notes of a store by study (`Store.notes`), for callers that only read results. They contain the dtype and the machine
            of the last run, so that the store of another machine can be read, and whether it trusted programs of the model.
        machine: the machine to plan for. Default: this one.
        trust_code: whether programs of the model run without a sandbox. Scores of such a study are other results.

    Raises:
        BadInput: the recipe cannot work; the message names each reason.
    """
    read_recipe = read(path, changes)
    if read_recipe.loaded is None:
        raise _refused(read_recipe)
    recipe, places, file = read_recipe.loaded
    found = complaints(recipe)
    if recipe.evaluate.source == "published":
        from compresslab.plan import published  # imports the tables, which other plans do not need

        planned = published.plan(recipe, places, found)
    else:
        note = (noted or {}).get(recipe.study) if device is None else None
        last = last_run(note, recipe.compute) if note is not None else None
        planned_for = (
            Machine(last.compute, last.facts, last.machine)
            if last
            else machine_for(recipe.compute, recipe.base.dtype, machine or probed(device))
        )
        trusted = recipe.evaluate.run_code and (trust_code or (last is not None and last.trust_code))
        planned = build(recipe, planned_for, places, found, trust_code=trusted)
    return replace(planned, file=file, changes=changes.described())


def _refused(found: ReadRecipe) -> RecipeError:
    """The error with all problems of a recipe: those of its form, and those that the plan of its sound part finds."""
    sound = _sound_part(found)
    if sound is None:
        return RecipeError([problem.shown(found.name) for problem in found.problems])
    recipe, without = sound
    if recipe.evaluate.source == "published":
        from compresslab.plan import published

        return _with_complaints(found, [*complaints(recipe), *published.complaints(recipe)], without)
    return _with_complaints(found, [*complaints(recipe), *ResolvedRecipe(recipe).complaints], without)


def complaints(recipe: Recipe) -> list[Complaint]:
    """Complaints about references and hardware that do not exist, each with the existing names."""
    found = []
    problem = unknown_reference(recipe.density.reference)
    if not problem and is_file(recipe.density.reference):
        problem = _broken(recipe.density.reference)
    if problem:
        found.append(Complaint(("density", "reference"), problem))
    for number, name in enumerate(recipe.density.hardware):
        if name != THIS_MACHINE:
            try:
                load_hardware(name)
            except BadInput as error:
                found.append(Complaint(("density", "hardware", number), f"{error}; or {THIS_MACHINE}"))
    return found


def _broken(reference: str) -> str:
    """What is wrong with a user's reference file; empty if nothing is. Reading it imports numpy, so the package's own ones are not read."""
    from compresslab.density.references.reference import Reference

    try:
        Reference.load(reference)
    except BadInput as error:
        return str(error)
    return ""


def _sound_part(found: ReadRecipe) -> tuple[Recipe, list[Place]] | None:
    """The recipe without the values that are wrong, which have their defaults instead, and the places of these values. `None` if its base
    is wrong, without which there is nothing to plan."""
    if found.places is None:
        return None
    data = found.places.root.data()
    assert isinstance(data, dict)
    variants = data.get("variants")
    data["variants"] = {name: variants[name] for name in found.sound_variants} if isinstance(variants, dict) else {}
    data.pop("sweeps", None)
    without: list[Place] = []
    for _ in range(ROUNDS):
        try:
            return Recipe.model_validate_json(json.dumps(data), strict=True), without
        except ValidationError as error:
            for details in error.errors(include_url=False, include_input=False):
                place = _place(data, details["loc"])
                if place[:1] == ("base",) or not _leave_out(data, place):
                    return None
                without.append(place)
    return None


def _with_complaints(found: ReadRecipe, complaints: list[Complaint], without: list[Place]) -> RecipeError:
    """The error with the problems of a recipe and the complaints about its sound part, in the file's order."""
    assert found.places is not None
    told = [complaint for complaint in complaints if not any(complaint.path[: len(path)] == path for path in without)]
    problems = sorted({*found.problems, *map(found.places.problem, told)})
    return RecipeError([problem.shown(found.places.name) for problem in problems])


def _place(data: Any, location: tuple[int | str, ...]) -> Place:
    """The place of an error of pydantic's: the entry of a mapping that is missing, unknown or wrong. A list counts as one value."""
    place: list[str | int] = []
    for step in location:
        if not isinstance(data, dict) or not isinstance(step, str) or step.startswith("["):
            break
        place.append(step)
        if step not in data:
            break
        data = data[step]
    return tuple(place)


def _leave_out(data: Mapping[str, Any], place: Place) -> bool:
    """Put the default or a stand-in in the place of a value. False if that is not possible."""
    if not place:
        return False
    inner: Any = data
    for step in place[:-1]:
        inner = inner[step]
    inner.pop(place[-1], None)
    if place in STAND_INS:
        inner[place[-1]] = STAND_INS[place]
    return True
