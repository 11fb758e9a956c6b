"""From a recipe's file to a plan: the one way that the command line and programs share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from compresslab.catalog.hardware import THIS_MACHINE, load_hardware
from compresslab.catalog.references import is_file, unknown_reference
from compresslab.errors import BadInput
from compresslab.machine.this_machine import last_machine, this_machine_for
from compresslab.plan.build import build
from compresslab.plan.graph import Plan
from compresslab.recipe.changes import NO_CHANGES, Changes
from compresslab.recipe.load import load_located
from compresslab.recipe.places import Complaint
from compresslab.recipe.schema import Recipe
from compresslab.records import StudyNote


def prepare(path: Path, changes: Changes = NO_CHANGES, device: str | None = None, noted: Mapping[str, StudyNote] | None = None) -> Plan:
    """Load, check and plan a recipe, with what a command line changes in it, without importing torch.

    Args:
        device: by torch's name, to compute on; this machine's own choice without it.
        noted: for whoever only reads results: the notes of a store by study (`Store.notes`), which say what its last run was
            computed in, and where. A store of another machine can be read so.

    Raises:
        BadInput: anything in the recipe that cannot work, named.
    """
    recipe, places, file = load_located(path, changes)
    found = complaints(recipe)
    if recipe.evaluate.source == "published":
        from compresslab.plan import published  # the tables, which a plan of models to run does not need

        planned = published.plan(recipe, places, found)
    else:
        note = (noted or {}).get(recipe.study) if device is None else None
        last = last_machine(note, recipe.compute) if note is not None else None
        planned = build(recipe, last or this_machine_for(recipe.compute, recipe.base.dtype, device), places, found)
    return replace(planned, file=file, changes=changes.described())


def complaints(recipe: Recipe) -> list[Complaint]:
    """Names of references and hardware that do not exist, each with those that do."""
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
    """What is wrong with a reference's file; empty if nothing is. Reads it, which takes numpy: only a user's own file is worth that."""
    from compresslab.density.references.reference import Reference

    try:
        Reference.load(reference)
    except BadInput as error:
        return str(error)
    return ""
