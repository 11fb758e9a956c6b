"""From a recipe's file to a plan, for the command line and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from compresslab.catalog.hardware import THIS_MACHINE, load_hardware
from compresslab.catalog.references import is_file, unknown_reference
from compresslab.errors import BadInput
from compresslab.machine.this_machine import Machine, ProbedMachine, last_run, machine_for, probed
from compresslab.plan.build import build
from compresslab.plan.graph import Plan
from compresslab.recipe.changes import NO_CHANGES, Changes
from compresslab.recipe.load import load_located
from compresslab.recipe.places import Complaint
from compresslab.recipe.schema import Recipe
from compresslab.records import StudyNote


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
    recipe, places, file = load_located(path, changes)
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
