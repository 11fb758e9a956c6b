"""Plans of studies of published scores, which run no models and compare scores within one table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from compresslab.catalog import published_scores as tables
from compresslab.catalog.hardware import THIS_MACHINE
from compresslab.catalog.references import reference_names
from compresslab.errors import BadInput
from compresslab.methods.adopt import Adopt
from compresslab.plan.graph import Plan, PlanVariant
from compresslab.recipe.order import ordered
from compresslab.recipe.places import Complaint, Places, refusal
from compresslab.recipe.schema import Base, Recipe
from compresslab.recipe.steps import BASE


class PublishedEntry(NamedTuple):
    """A variant of a published study: its model, its table, the variant before it, and how it was made from that."""

    model: str
    table: str
    parent: str
    how: str


def plan(recipe: Recipe, places: Places | None, found: list[Complaint]) -> Plan:
    """Check a recipe with `source: published`. Its plan has variants and no nodes.

    Raises:
        RecipeError: all complaints at once.
    """
    complaints = [*found, *_complaints(recipe)]
    if complaints:
        raise refusal(complaints, places)
    variants = [PlanVariant(name, entry.parent, True, (), "", None) for name, entry in entries(recipe).items()]
    return Plan(recipe, (), tuple(variants), tuple(_warnings(recipe)))


def entries(recipe: Recipe) -> dict[str, PublishedEntry]:
    """Every variant with its model, parents first. The recipe must have no complaints."""
    found = {BASE: PublishedEntry(_name(recipe.base.model), _table(recipe, recipe.base), "", "")}
    for name in ordered(recipe):
        variant = recipe.variants[name]
        adopt = variant.steps[-1].config
        assert isinstance(adopt, Adopt), "a study of published scores adopts models and does nothing else"
        found[name] = PublishedEntry(_name(adopt.model), _table(recipe, adopt), variant.start, adopt.how)
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
        from compresslab.density import Reference

        reference = Reference.load(recipe.density.reference)
        if not set(tables.BENCHMARKS) & set(reference.tasks):
            fitting = [name for name in reference_names() if set(Reference.load(name).tasks) & set(tables.BENCHMARKS)]
            yield Complaint(
                ("density", "reference"), f"{reference.name} knows none of the published benchmarks; these do: {', '.join(fitting)}"
            )
    except BadInput:
        pass  # the caller reports it


def _model_problems(recipe: Recipe, of: Base | Adopt) -> Iterator[tuple[str, str]]:
    """Problems of one model: pairs of the field that must change and the reason."""
    if not of.model.startswith(tables.PREFIX):
        yield "model", f"{of.model!r} is no published model; write published:<name> (the models are in data/published_scores.csv)"
        return
    model, table = _name(of.model), _table(recipe, of)
    try:
        tables.find_model(model)
        tables.weights(model)
        tables_with_model = tables.tables_of(model)
        if not table:
            yield "model", f"which table? {model} stands in: {', '.join(tables_with_model)}; write evaluate: {{table: …}}"
        elif tables.find_table(table) not in tables_with_model:
            yield "model", f"the table {table} has no {model}; it stands in: {', '.join(tables_with_model)}"
        elif recipe.evaluate.tasks and not set(recipe.evaluate.tasks) & set(tables.scores_of(model, table)):
            scored = ", ".join(tables.scores_of(model, table))
            yield "model", f"{table} has none of the tasks asked for of {model}; it has: {scored}"
    except BadInput as error:
        yield "model", str(error)


def _warnings(recipe: Recipe) -> Iterator[str]:
    if THIS_MACHINE in recipe.density.hardware:
        yield f"density.hardware: {THIS_MACHINE} is left out, since a study of published scores measures nothing"
