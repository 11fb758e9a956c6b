"""Studies of published scores: models that nobody here runs, compared within one table. Nothing here imports torch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from compresslab.density import Measured, Reference, assess, load_hardware
from compresslab.density import published as tables
from compresslab.density.names import reference_names
from compresslab.errors import BadInput
from compresslab.plan.graph import Plan, PlanVariant
from compresslab.recipe.order import ordered
from compresslab.recipe.places import Complaint, Places, refusal
from compresslab.recipe.schema import Base, Recipe
from compresslab.recipe.steps import BASE, Adopt
from compresslab.records import Shape, Size, StepRecord, StudyRecord, TaskScore, VariantRecord
from compresslab.runner.run import THIS_MACHINE, Ran
from compresslab.runner.study import study_record


class Entry(NamedTuple):
    """A variant of a published study: which model it is, in which table, and the variant before it."""

    model: str
    table: str
    parent: str
    how: str


def plan(recipe: Recipe, places: Places | None, found: list[Complaint]) -> Plan:
    """Check a recipe with `source: published`; its plan has variants and nothing to run.

    Raises:
        RecipeError: everything that is wrong, at once.
    """
    complaints = [*found, *_complaints(recipe)]
    if complaints:
        raise refusal(complaints, places)
    variants = [PlanVariant(name, entry.parent, True, (), "", None) for name, entry in _entries(recipe).items()]
    return Plan(recipe, (), tuple(variants), tuple(_warnings(recipe)))


def assemble(plan: Plan, recipe_path: Path) -> StudyRecord:
    """The study's record: densities and comparisons from the tables alone."""
    began = time.perf_counter()
    recipe, entries = plan.recipe, _entries(plan.recipe)
    weights = {name: tables.weights(entry.model) for name, entry in entries.items()}
    measured = [_measured(recipe, name, entry, weights[name], entries) for name, entry in entries.items()]
    hardware = [load_hardware(name) for name in recipe.density.hardware if name != THIS_MACHINE]
    densities = assess(measured, recipe.density, hardware, reference_names())
    variants: list[VariantRecord] = []
    for one in measured:
        entry, (density, comparisons) = entries[one.name], densities[one.name]
        before = next((variant.steps for variant in variants if variant.name == entry.parent), [])
        variants.append(
            VariantRecord(
                name=one.name,
                parent=entry.parent,
                root=BASE,
                steps=[*before, _step(entry, one.size, one.shape)],
                scores=[_score(entry, benchmark, score) for benchmark, score in one.published.items()],
                density=density,
                comparisons=comparisons,
            )
        )
    return study_record(plan, recipe_path, variants, Ran({}, 0, time.perf_counter() - began), list(_notes(recipe, entries)))


def _entries(recipe: Recipe) -> dict[str, Entry]:
    """Every variant with its model, parents first. The recipe has no complaints."""
    found = {BASE: Entry(_name(recipe.base.model), _table(recipe, recipe.base), "", "")}
    for name in ordered(recipe):
        variant = recipe.variants[name]
        adopt = variant.steps[-1].config
        assert isinstance(adopt, Adopt), "a study of published scores adopts models and does nothing else"
        found[name] = Entry(_name(adopt.model), _table(recipe, adopt), variant.start, adopt.how)
    return found


def _name(model: str) -> str:
    return model.removeprefix(tables.PREFIX)


def _table(recipe: Recipe, of: Base | Adopt) -> str:
    return of.table or recipe.evaluate.table or ""


def _complaints(recipe: Recipe) -> Iterator[Complaint]:
    places: list[tuple[tuple[str | int, ...], Base | Adopt]] = [(("base",), recipe.base)]
    for name, variant in recipe.variants.items():
        for number, step in enumerate(variant.steps):
            at: tuple[str | int, ...] = ("variants", name, "steps", number)
            if not isinstance(step.config, Adopt):
                yield Complaint(
                    (*at, step.kind), "a study of published scores adopts models; steps that make one need evaluate: {source: run}"
                )
            elif number:
                yield Complaint(at, "one adopted model a variant; give the second a variant of its own, with from")
            else:
                places.append(((*at, "adopt"), step.config))
    for where, of in places:
        for field, problem in _model_problems(recipe, of):
            yield Complaint((*where, field), problem)
    used = {table for _, of in places if (table := _table(recipe, of)) in tables.tables()}
    if len(used) > 1 and not recipe.evaluate.across_tables:
        listed = " and ".join(sorted(used))
        yield Complaint(
            ("evaluate",),
            f"the models come from different tables ({listed}), whose settings differ; take one table, or say across_tables: true",
        )
    for name, variant in recipe.variants.items():
        before = recipe.base if variant.start == BASE else recipe.variants[variant.start].steps[-1].config
        own = variant.steps[-1].config
        if (
            isinstance(own, Adopt)
            and isinstance(before, Base | Adopt)
            and (own.model, _table(recipe, own)) == (before.model, _table(recipe, before))
        ):
            yield Complaint(("variants", name), f"{own.model} is the model that it starts from; compare it with another")
    for number, task in enumerate(recipe.evaluate.tasks):
        if task not in tables.BENCHMARKS:
            yield Complaint(("evaluate", "tasks", number), f"{task} is none of the published benchmarks: {', '.join(tables.BENCHMARKS)}")
    try:
        reference = Reference.load(recipe.density.reference)
        if not set(tables.BENCHMARKS) & set(reference.tasks):
            fitting = [name for name in reference_names() if set(Reference.load(name).tasks) & set(tables.BENCHMARKS)]
            yield Complaint(
                ("density", "reference"), f"{reference.name} knows none of the published benchmarks; these do: {', '.join(fitting)}"
            )
    except BadInput:
        pass  # told by the caller already


def _model_problems(recipe: Recipe, of: Base | Adopt) -> Iterator[tuple[str, str]]:
    """What is wrong with one model, each with the field to blame."""
    if not of.model.startswith(tables.PREFIX):
        yield "model", f"{of.model!r} is no published model; write published:<name> (the models are in data/published_scores.csv)"
        return
    model, table = _name(of.model), _table(recipe, of)
    try:
        tables.find_model(model)
        tables.weights(model)
        there = tables.tables_of(model)
        if not table:
            yield "model", f"which table? {model} stands in: {', '.join(there)}; write evaluate: {{table: …}}"
        elif tables.find_table(table) not in there:
            yield "model", f"the table {table} has no {model}; it stands in: {', '.join(there)}"
        elif recipe.evaluate.tasks and not set(recipe.evaluate.tasks) & set(tables.of_model(model, table)):
            scored = ", ".join(tables.of_model(model, table))
            yield "model", f"{table} has none of the tasks asked for of {model}; it has: {scored}"
    except BadInput as error:
        yield "model", str(error)


def _warnings(recipe: Recipe) -> Iterator[str]:
    if THIS_MACHINE in recipe.density.hardware:
        yield f"density.hardware: {THIS_MACHINE} is left out, since a study of published scores measures nothing"


def _measured(recipe: Recipe, name: str, entry: Entry, weights: tuple[Size, Shape], entries: dict[str, Entry]) -> Measured:
    found = tables.of_model(entry.model, entry.table)
    wanted = recipe.evaluate.tasks or list(tables.BENCHMARKS)
    origin, how = tables.compression(entry.model)
    packed = tables.PACKED.get(how)
    copied = packed is not None and not packed.trained and entry.parent and entries[entry.parent].model == origin
    return Measured(
        name=name,
        parent=entry.parent,
        root=BASE,
        size=weights[0],
        shape=weights[1],
        published={task: found[task].score for task in wanted if task in found},
        table=entry.table,
        same_as=entry.parent if copied else "",
    )


def _step(entry: Entry, size: Size, shape: Shape) -> StepRecord:
    _, how = tables.compression(entry.model)
    return StepRecord(
        kind="adopt" if entry.parent else "base",
        method="published",
        config={"model": entry.model, "table": entry.table, "how": entry.how or how},
        seed=0,
        size=size,
        shape=shape,
        details={"source": tables.tables()[entry.table][1]},
    )


def _score(entry: Entry, benchmark: str, score: float) -> TaskScore:
    items, chance = tables.BENCHMARKS[benchmark]
    return TaskScore(
        task=benchmark,
        items=items,
        bits_per_byte=None,
        bits_per_byte_stderr=None,
        accuracy=score,
        accuracy_stderr=math.sqrt(score * (1 - score) / items),
        metric=tables.of_model(entry.model, entry.table)[benchmark].metric,
        chance=chance,
        engine="published",
        weights="as published",
        bos=False,
        truncated=0,
        prompts="",
    )


def _notes(recipe: Recipe, entries: dict[str, Entry]) -> Iterator[str]:
    for table in dict.fromkeys(entry.table for entry in entries.values()):
        evaluator, source = tables.tables()[table]
        yield f"Scores of table {table}, evaluated by {evaluator}: {source}."
    if len({entry.table for entry in entries.values()}) > 1:
        yield "⚠ Parent and child stand in different tables: settings, prompts and harness may differ by more than the models do."
    yield (
        "Nothing was run here. A published score has no items, so its error is the binomial one of its benchmark, and parent and child are "
        "taken as independent; how far a benchmark strays from a model's capability is taken from the reference's own models."
    )
    notes = {
        score.note
        for entry in entries.values()
        for score in tables.of_model(entry.model, entry.table).values()
        if score.note and (not recipe.evaluate.tasks or score.benchmark in recipe.evaluate.tasks)
    }
    yield from sorted(f"From the table: {note}." for note in notes)
