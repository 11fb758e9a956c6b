"""Studies of published scores, which run no model. Does not import torch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from compresslab.catalog import published_scores as tables
from compresslab.catalog.hardware import THIS_MACHINE, load_hardware
from compresslab.catalog.published_settings import TASKS
from compresslab.catalog.references import reference_names
from compresslab.density import Measured, assess
from compresslab.density.anchors import anchors
from compresslab.density.draws import Anchor
from compresslab.plan.graph import Plan
from compresslab.plan.published import PublishedEntry, entries
from compresslab.plan.user_tables import lookup
from compresslab.recipe.schema import Recipe
from compresslab.recipe.steps import BASE
from compresslab.records import Shape, Size, StepRecord, StudyRecord, TaskScore, VariantRecord
from compresslab.runner.run import RunResult
from compresslab.studies.assemble import study_record
from compresslab.studies.training_runs import origin_in_words


def assemble(plan: Plan) -> StudyRecord:
    """The study's record: densities and comparisons from the tables alone."""
    started = time.perf_counter()
    recipe, published_entries = plan.recipe, entries(plan.recipe)
    weights = {name: lookup.weights(entry.model, entry.table) for name, entry in published_entries.items()}
    measured = [_measured(recipe, name, entry, weights[name], published_entries) for name, entry in published_entries.items()]
    hardware = [load_hardware(name) for name in recipe.density.hardware if name != THIS_MACHINE]
    densities = assess(measured, recipe.density, hardware, reference_names())
    variants: list[VariantRecord] = []
    for published in measured:
        entry, (density, comparisons) = published_entries[published.name], densities[published.name]
        parent_steps = next((variant.steps for variant in variants if variant.name == entry.parent), [])
        variants.append(
            VariantRecord(
                name=published.name,
                parent=entry.parent,
                root=BASE,
                steps=[*parent_steps, _step(entry, published_entries.get(entry.parent), published.size, published.shape)],
                scores=[_score(entry, benchmark, score) for benchmark, score in published.published.items()],
                density=density,
                comparisons=comparisons,
            )
        )
    return study_record(plan, variants, RunResult({}, 0, time.perf_counter() - started), list(_notes(recipe, published_entries)))


def _measured(
    recipe: Recipe, name: str, entry: PublishedEntry, weights: tuple[Size, Shape], entries: dict[str, PublishedEntry]
) -> Measured:
    scores = lookup.scores_of(entry.model, entry.table)
    onto = entries[BASE].table
    shifts: dict[str, Anchor] = {}
    joined = "parts of one evaluation"
    if not lookup.one_evaluation(entry.table, onto):
        shifts, models = anchors(entry.table, onto)
        scores = {task: score for task, score in scores.items() if task in shifts}
        joined = f"joined by the {models} models that both have"
    return Measured(
        name=name,
        parent=entry.parent,
        root=BASE,
        size=weights[0],
        shape=weights[1],
        published={task: scores[task].score for task in recipe.evaluate.tasks or TASKS if task in scores},
        table=entry.table,
        anchors=shifts,
        joined="" if entry.table == onto else joined,
        runs=[entry.parent if entry.parent and _copy(entry, entries[entry.parent])[0] else name],
    )


def _copy(entry: PublishedEntry, parent: PublishedEntry) -> tuple[bool, str]:
    """Whether a model is a quantized copy of its parent's weights, and on what ground."""
    if entry.trained is not None:
        return not entry.trained, f"the recipe says `trained: {str(entry.trained).lower()}`"
    origin, compression_method = lookup.compression(entry.model, entry.table)
    packed = tables.PACKED.get(compression_method)
    if packed is None or origin != parent.model:
        return False, "no table says that it is a quantized copy"
    return not packed.trained, f"the tables say that it is {origin} after {compression_method}"


def _step(entry: PublishedEntry, parent: PublishedEntry | None, size: Size, shape: Shape) -> StepRecord:
    origin, compression_method = lookup.compression(entry.model, entry.table)
    packed, tokens = tables.PACKED.get(compression_method), lookup.train_tokens(entry.model, entry.table)
    details: dict[str, object] = {"source": lookup.source(entry.table)[1]}
    if tokens:
        details["train_tokens"] = tokens
    if packed and parent is not None and origin == parent.model:  # else the step from this parent is more than rounding
        details |= {"compression": compression_method, "weight_bits": packed.code_bits, "trained_after": packed.trained}
    return StepRecord(
        kind="adopt" if entry.parent else "base",
        method="published",
        config={"model": entry.model, "table": entry.table, "how": entry.how or compression_method},
        seed=0,
        size=size,
        shape=shape,
        details=details,
    )


def _score(entry: PublishedEntry, benchmark: str, score: float) -> TaskScore:
    items, chance, _, _ = TASKS[benchmark]
    return TaskScore(
        task=benchmark,
        items=items,
        bits_per_byte=None,
        bits_per_byte_stderr=None,
        accuracy=score,
        accuracy_stderr=math.sqrt(score * (1 - score) / items),
        metric=lookup.scores_of(entry.model, entry.table)[benchmark].metric or "not stated",
        chance=chance,
        engine="published",
        weights="as published",
        bos=False,
        truncated=0,
        prompts="",
    )


def _notes(recipe: Recipe, entries: dict[str, PublishedEntry]) -> Iterator[str]:
    for table in dict.fromkeys(entry.table for entry in entries.values()):
        evaluator, source = lookup.source(table)
        yield f"Scores of table {table}, evaluated by {evaluator}: {source}."
    if len({entry.table for entry in entries.values()}) > 1:
        yield (
            "⚠ Parent and child stand in different tables. Tables of one document count as one evaluation; others are joined by the models "
            "that both have, whose differences are in the interval."
        )
    yield (
        "Nothing was run here. A published score has no items, so its error is the binomial one of its benchmark, and parent and child are "
        "taken as independent; how far a benchmark strays from a model's capability is taken from the reference's own models and from how "
        "far the benchmarks of this pair disagree."
    )
    for name, entry in entries.items():
        if entry.parent:
            yield origin_in_words(name, entry.parent, *_copy(entry, entries[entry.parent]))
    for entry in entries.values():
        if unread := lookup.unread(entry.model, entry.table):
            yield f"Not read of {entry.model} in {entry.table}, in settings that no reference has: {'; '.join(unread)}."
    notes = {
        score.note
        for entry in entries.values()
        for score in lookup.scores_of(entry.model, entry.table).values()
        if score.note and (not recipe.evaluate.tasks or score.task in recipe.evaluate.tasks)
    }
    yield from sorted(f"From the table: {note}." for note in notes)
