"""Studies of published scores: models that nobody here runs, compared within one table. Nothing here imports torch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from compresslab.catalog import published_scores as tables
from compresslab.catalog.hardware import THIS_MACHINE, load_hardware
from compresslab.catalog.references import reference_names
from compresslab.density import Measured, assess
from compresslab.plan.graph import Plan
from compresslab.plan.published import Entry, entries
from compresslab.recipe.schema import Recipe
from compresslab.recipe.steps import BASE
from compresslab.records import Shape, Size, StepRecord, StudyRecord, TaskScore, VariantRecord
from compresslab.runner.run import RunResult
from compresslab.studies.assemble import study_record


def assemble(plan: Plan) -> StudyRecord:
    """The study's record: densities and comparisons from the tables alone."""
    began = time.perf_counter()
    recipe, chosen = plan.recipe, entries(plan.recipe)
    weights = {name: tables.weights(entry.model) for name, entry in chosen.items()}
    measured = [_measured(recipe, name, entry, weights[name], chosen) for name, entry in chosen.items()]
    hardware = [load_hardware(name) for name in recipe.density.hardware if name != THIS_MACHINE]
    densities = assess(measured, recipe.density, hardware, reference_names())
    variants: list[VariantRecord] = []
    for one in measured:
        entry, (density, comparisons) = chosen[one.name], densities[one.name]
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
    return study_record(plan, variants, RunResult({}, 0, time.perf_counter() - began), list(_notes(recipe, chosen)))


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
