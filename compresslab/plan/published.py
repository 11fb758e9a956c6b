"""Plans of studies of published scores, which run no models and compare scores within one table."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import NamedTuple

from compresslab.catalog import published_scores as tables
from compresslab.catalog.hardware import THIS_MACHINE
from compresslab.catalog.published_settings import TASKS, mismatch, other_settings
from compresslab.catalog.references import reference_names, unknown_reference
from compresslab.errors import BadInput
from compresslab.methods.adopt import Adopt
from compresslab.plan.graph import Plan, PlanVariant
from compresslab.plan.user_tables import lookup
from compresslab.plan.user_tables.sizes import UNKNOWN_SHAPE
from compresslab.recipe.order import ordered
from compresslab.recipe.places import Complaint, Places, refusal
from compresslab.recipe.schema import Base, Recipe
from compresslab.recipe.steps import BASE


class PublishedEntry(NamedTuple):
    """A variant of a published study: its model, its table, the variant before it, how it was made from that, and whether by training."""

    model: str
    table: str
    parent: str
    how: str
    trained: bool | None = None


def plan(recipe: Recipe, places: Places | None, found: list[Complaint]) -> Plan:
    """Check a recipe with `source: published`. Its plan has variants and no nodes.

    Raises:
        RecipeError: all complaints at once.
    """
    if everything := [*found, *complaints(recipe)]:
        raise refusal(everything, places)
    variants = [PlanVariant(name, entry.parent, True, (), "", None) for name, entry in entries(recipe).items()]
    return Plan(recipe, (), tuple(variants), tuple(_warnings(recipe)))


def entries(recipe: Recipe) -> dict[str, PublishedEntry]:
    """Every variant with its model, parents first. The recipe must have no complaints."""
    found = {BASE: PublishedEntry(_name(recipe.base.model), _table(recipe, recipe.base), "", "")}
    for name in ordered(recipe):
        variant = recipe.variants[name]
        adopt = variant.steps[-1].config
        assert isinstance(adopt, Adopt), "a study of published scores adopts models and does nothing else"
        found[name] = PublishedEntry(_name(adopt.model), _table(recipe, adopt), variant.start, adopt.how, adopt.trained)
    return found


def _name(model: str) -> str:
    return model.removeprefix(tables.PREFIX)


def _table(recipe: Recipe, of: Base | Adopt) -> str:
    return of.table or recipe.evaluate.table or ""


def complaints(recipe: Recipe) -> Iterator[Complaint]:
    """Everything that is wrong with a recipe of published scores that its schema does not see."""
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
    broken = yield from _broken_tables(recipe, places)
    for where, of in places:
        if _table(recipe, of) not in broken:
            for field, problem in _model_problems(recipe, of):
                yield Complaint((*where, field), problem)
    if not broken:
        yield from _untimed(recipe, places)
    used = {table for _, of in places if lookup.known(table := _table(recipe, of))}
    if len(used) > 1 and not recipe.evaluate.across_tables:
        listed = " and ".join(sorted(used))
        yield Complaint(
            ("evaluate",),
            f"the models come from different tables ({listed}), whose settings differ; take one table, or say across_tables: true",
        )
    if recipe.evaluate.across_tables:
        yield from _unjoined(recipe, places)
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
        if task not in TASKS:
            settings = other_settings(task, TASKS)
            several = f"{task} has several settings; write one of {', '.join(settings)}"
            unknown = f"{task} is none of the published benchmarks: {', '.join(TASKS)}"
            yield Complaint(("evaluate", "tasks", number), several if settings else unknown)
    try:
        from compresslab.density import Reference

        reference = Reference.load(recipe.density.reference)
        if not set(TASKS) & set(reference.tasks):
            fitting = [name for name in reference_names() if set(Reference.load(name).tasks) & set(TASKS)]
            yield Complaint(
                ("density", "reference"), f"{reference.name} knows none of the published benchmarks; these do: {', '.join(fitting)}"
            )
    except BadInput:
        pass  # the caller reports it


def _broken_tables(recipe: Recipe, places: list[tuple[tuple[str | int, ...], Base | Adopt]]) -> Generator[Complaint, None, set[str]]:
    """What is wrong with the user's own tables, each told once; the tables that cannot be read."""
    broken: set[str] = set()
    for where, of in places:
        table = _table(recipe, of)
        if lookup.is_file(table) and table not in broken:
            try:
                lookup.source(table)
            except BadInput as error:
                broken.add(table)
                for line in str(error).splitlines():
                    yield Complaint((*where, "table") if of.table else ("evaluate", "table"), line)
    return broken


def _untimed(recipe: Recipe, places: list[tuple[tuple[str | int, ...], Base | Adopt]]) -> Iterator[Complaint]:
    """Hardware whose times would be modelled of a model without dimensions."""
    if set(recipe.density.hardware) <= {THIS_MACHINE}:
        return
    for where, of in places:
        model, table = _name(of.model), _table(recipe, of)
        if lookup.is_file(table) and lookup.scores_of(model, table) and lookup.weights(model, table)[1].architecture == UNKNOWN_SHAPE:
            reason = f"times are modelled from dimensions, and {table} has params alone of {model}; give its config, or hardware: []"
            yield Complaint((*where, "model"), reason)


def _unjoined(recipe: Recipe, places: list[tuple[tuple[str | int, ...], Base | Adopt]]) -> Iterator[Complaint]:
    """Tables that too few models join with the base's."""
    from compresslab.density.anchors import anchors

    onto = _table(recipe, recipe.base)
    for where, of in places:
        table = _table(recipe, of)
        if table != onto and (lookup.is_file(onto) or lookup.is_file(table)):
            yield Complaint(
                (*where, "table") if of.table else where,
                f"nothing tells how scores of {table} and {onto} differ; put the scores of both models into one table",
            )
        elif lookup.known(onto) and lookup.known(table) and not lookup.one_evaluation(table, onto):
            shifts, models = anchors(table, onto)
            if not set(shifts) & set(lookup.scores_of(_name(of.model), table)):
                yield Complaint(
                    (*where, "table") if of.table else where,
                    f"{table} and the base's {onto} have {models} models in common in one setting, too few to tell how the tables differ; "
                    "take a table that has both",
                )


def _model_problems(recipe: Recipe, of: Base | Adopt) -> Iterator[tuple[str, str]]:
    """Problems of one model: pairs of the field that must change and the reason."""
    if not of.model.startswith(tables.PREFIX):
        yield (
            "model",
            f"{of.model!r} is no published model; write published:<name>, of data/published_scores.csv or of your own table",
        )
        return
    model, table = _name(of.model), _table(recipe, of)
    try:
        lookup.check_model(model, table)
        tables_with_model = lookup.tables_of(model, table)
        if not table:
            yield "model", f"which table? {model} stands in: {', '.join(tables_with_model)}; write evaluate: {{table: …}}"
        elif lookup.find_table(table) not in tables_with_model:
            yield "model", f"the table {table} has no {model}; it stands in: {', '.join(tables_with_model)}"
        elif problem := _unreadable(recipe, model, table):
            yield "model", problem
    except BadInput as error:
        yield "model", str(error)


def _unreadable(recipe: Recipe, model: str, table: str) -> str:
    """Why no score of a model in a table can be read by the study, or ""."""
    asked, scored = recipe.evaluate.tasks, list(lookup.scores_of(model, table))
    wanted = [task for task in asked or scored if task in TASKS]
    there = [task for task in wanted if task in scored]
    if not there:
        benchmarks = {TASKS[task].benchmark for task in wanted}
        read = [f"{task} ({TASKS[task].setting})" for task in scored]
        unread = [text for text in lookup.unread(model, table) if not asked or text.partition(" (")[0] in benchmarks]
        settings = f"; not read: {', '.join(unread)}, a setting that no reference has" if unread else ""
        return f"{table} has none of the tasks asked for of {model}; it has: {', '.join(read) or 'none that can be read'}{settings}"
    if unknown_reference(recipe.density.reference):
        return ""  # The caller reports it.
    from compresslab.density import Reference

    reference = Reference.load(recipe.density.reference)
    if set(TASKS) & set(reference.tasks) and not set(there) & set(reference.tasks):
        return "; ".join(mismatch(task, reference.name, reference.tasks) for task in there)
    return ""


def _warnings(recipe: Recipe) -> Iterator[str]:
    if THIS_MACHINE in recipe.density.hardware:
        yield f"density.hardware: {THIS_MACHINE} is left out, since a study of published scores measures nothing"
