"""Assembles a study's record from the store: the records of all variants, and their densities."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from compresslab.catalog.hardware import THIS_MACHINE, Hardware, load_hardware
from compresslab.catalog.published_scores import PREFIX
from compresslab.catalog.references import reference_names
from compresslab.density import Measured, assess
from compresslab.density.overlap import leave_out_overlaps
from compresslab.density.published_laws.predictions import AddedLoss, published_laws
from compresslab.density.references.curve import curves
from compresslab.density.references.reference import Reference
from compresslab.evaluation.sandbox.programs import UNCONFINED
from compresslab.evaluation.scores import read_items
from compresslab.plan.graph import Plan, PlanVariant
from compresslab.recipe.schema import Recipe
from compresslab.records import (
    Cost,
    Failure,
    ItemScores,
    MachineSpeed,
    StepRecord,
    StudyRecord,
    TaskScore,
    TextDivergence,
    Timing,
    VariantRecord,
)
from compresslab.runner.provenance import provenance
from compresslab.runner.run import RunResult
from compresslab.store.done import is_done, missing
from compresslab.store.store import Store
from compresslab.studies.answers.added_loss import added_loss
from compresslab.studies.answers.fidelity import fidelity
from compresslab.studies.answers.lost_items import lost_items
from compresslab.studies.answers.noise import Scored, noise_floors
from compresslab.studies.answers.overlaps import caveats as overlap_caveats
from compresslab.studies.answers.overlaps import text_overlaps
from compresslab.studies.answers.stored import Read, read_answers
from compresslab.studies.training_runs import origins, training_runs


def assemble(plan: Plan, store: Store, result: RunResult) -> StudyRecord:
    """The study's record from the finished nodes; failures name the missing ones."""
    recipe = plan.recipe
    variants = [_variant(variant, plan, store, result) for variant in plan.variants]
    known = {variant.name for variant in variants if variant.scores}
    scored = [
        Measured(
            name=variant.name,
            parent=variant.parent,
            root=variant.root,
            size=variant.steps[-1].size,
            shape=variant.steps[-1].shape,
            items=_items(plan.variant(variant.name), plan, store),
            runs=training_runs(plan.variant(variant.name), plan, variant.steps, store),
            timing=variant.timing,
            replicates=_replicates(plan.variant(variant.name), plan, known),
            replicate=bool(variant.replicate_of),
        )
        for variant in variants
        if variant.scores
    ]
    densities = assess(scored, recipe.density, _hardware(plan, store), reference_names()) if scored else {}
    overlaps = text_overlaps(plan, store, {measured.name: measured.items for measured in scored})
    densities = leave_out_overlaps(densities, scored, overlaps, recipe.density)
    with_densities = []
    for variant in variants:
        if variant.name in densities:
            density, comparisons = densities[variant.name]
            variant = variant.model_copy(update={"density": density, "comparisons": comparisons})
        with_densities.append(variant)
    items = {measured.name: measured.items for measured in scored}
    read = cache(read_answers)  # of a parent for each of its children
    with_answers = [variant.model_copy(update=_from_answers(variant, items, plan, store, read)) for variant in with_densities]
    noise = noise_floors(with_answers, Scored(items, {name: _tables(name, plan, store) for name in items}), read)
    with_answers = [variant.model_copy(update={"noise": noise.get(variant.name)}) for variant in with_answers]
    notes = [*_missing_replicates(plan, known), *origins(plan, variants, store)]
    record = study_record(plan, with_answers, result, notes, _added_losses(variants, items, plan, store, read))
    return record.model_copy(update={"overlaps": overlaps, "caveats": [*record.caveats, *overlap_caveats(overlaps)]})


def _replicates(variant: PlanVariant, plan: Plan, known: Container[str]) -> dict[str, list[str]]:
    """For each replicated step of a chain, by key: the nearest variant after it that has replicates, and those of them with results."""
    found: dict[str, list[str]] = {}
    steps = [plan.node(key).step for key in variant.chain]
    adopted = max((number for number, step in enumerate(steps) if step is not None and step[0] == "adopt"), default=-1)
    for other in sorted(plan.variants, key=lambda one: len(one.chain)):
        # An adopted model is nobody's replicate, whatever it stands after.
        if other.replicated and len(other.chain) > adopted + 1 and variant.chain[: len(other.chain)] == other.chain:
            found[other.replicated] = [name for name in (other.name, *other.replicates) if name in known]
    return found


def _missing_replicates(plan: Plan, known: Container[str]) -> Iterator[str]:
    """A note for each variant of which some replicates have no results."""
    for variant in plan.variants:
        missing = [name for name in variant.replicates if name not in known]
        if missing and variant.name in known:
            count, left = len(variant.replicates) + 1, len(variant.replicates) + 1 - len(missing)
            rest = f"its figures rest on the other {left}" if left > 1 else "one is left, so the reference's scatter stands for theirs"
            yield f"{variant.name}: {', '.join(missing)} of {count} replicates gave no scores (see Failures); {rest}."


def study_record(
    plan: Plan,
    variants: list[VariantRecord],
    result: RunResult,
    notes: Sequence[str] = (),
    added_losses: Mapping[str, AddedLoss] | None = None,
) -> StudyRecord:
    """The record of a study that ends now, with its recipe, provenance, curves, and what published laws predict for it.

    Args:
        added_losses: by variant what its last step adds to the loss, in nats a token; none for published scores.
    """
    recipe = plan.recipe
    return StudyRecord(
        study=recipe.study,
        question=recipe.question,
        base=recipe.base.model,
        recipe=plan.changes + plan.file.text,
        variants=variants,
        provenance=provenance(plan),
        seconds=result.seconds,
        cached_nodes=result.cached,
        nodes=len(plan.nodes),
        workload=recipe.density.workload.model_dump(),
        curves=curves(
            recipe.density.reference,
            [variant.density for variant in variants if variant.density],
            [variant.size.counted for variant in variants if variant.size],
        ),
        laws=published_laws(variants, _train_tokens(recipe), added_losses),
        notes=[*notes, *_reach(plan, variants)],
        caveats=[*_caveats(variants), *_trusted(variants)],
    )


def _train_tokens(recipe: Recipe) -> dict[str, float]:
    """The training tokens that a recipe states, by model. The records of models in a store may be from before it did."""
    stated = [(recipe.base.model, recipe.base.train_tokens)]
    adopted = [step.adopt for variant in recipe.variants.values() for step in variant.steps if step.adopt is not None]
    stated += [(adopt.model, adopt.train_tokens) for adopt in adopted]
    return {model.removeprefix(PREFIX): tokens for model, tokens in stated if tokens}


def _added_losses(
    variants: Sequence[VariantRecord], items: Mapping[str, dict[str, ItemScores]], plan: Plan, store: Store, read: Read
) -> dict[str, AddedLoss]:
    """What rounding adds to the loss of the right answers, by variant."""
    found = {}
    for variant in variants:
        if variant.steps and variant.steps[-1].kind == "quantize" and variant.name in items and variant.parent in items:
            added = added_loss(items[variant.parent], items[variant.name], _tables(variant.name, plan, store), read)
            if added is not None:
                found[variant.name] = added
    return found


def _reach(plan: Plan, variants: Sequence[VariantRecord]) -> Iterator[str]:
    """How far from its sizes the reference is read, if a density rests on it."""
    if any(variant.density for variant in variants):
        yield Reference.load(plan.recipe.density.reference).reach_in_words


def _caveats(variants: Sequence[VariantRecord]) -> Iterator[str]:
    """Caveats for bases and adopted models whose plain weights are unpacked copies of quantized ones."""
    for variant in variants:
        last_step = variant.steps[-1] if variant.steps else None
        if last_step is None or last_step.kind not in ("base", "adopt"):
            continue
        if quantized_format := last_step.details.get("quantized_before"):
            bits = f"{last_step.size.effective_bits:.0f}"
            yield (
                f"The weights of {variant.name} were quantized before: its file holds {quantized_format}. Its {bits} bits a weight are "
                "an unpacked copy, so by bits it is counted as larger than what it knows, and quantizing it again is a second rounding."
            )


def _trusted(variants: Sequence[VariantRecord]) -> Iterator[str]:
    """A caveat if programs of some variants ran without a sandbox, whichever run of the store that was."""
    names = [variant.name for variant in variants if any(score.metric.endswith(UNCONFINED) for score in variant.scores)]
    if names:
        yield (
            f"Programs of {', '.join(names)} ran without a sandbox (--trust-code): a program could have read the tests or changed the "
            "verdict, so these scores are not those of a sandboxed run."
        )


def _hardware(plan: Plan, store: Store) -> list[Hardware]:
    """The recipe's hardware profiles, without this machine's if its measurement failed."""
    profiles = []
    for name in plan.recipe.density.hardware:
        if name != THIS_MACHINE:
            profiles.append(load_hardware(name))
        elif speed := _machine_speed(plan, store):
            profiles.append(_this_machine(speed, plan.machine))
    return profiles


def _variant(variant: PlanVariant, plan: Plan, store: Store, result: RunResult) -> VariantRecord:
    steps = _steps(variant, store)
    node = plan.node(variant.evaluate)
    # The size and the steps of a model are unknown if its chain has a gap.
    scored = is_done(node, store) and len(steps) == len(variant.chain)
    return VariantRecord(
        name=variant.name,
        parent=variant.parent,
        root=plan.variants[0].name,
        named=variant.named,
        replicate_of=variant.replicate_of,
        steps=steps,
        keys=variant.keys,
        costs=_costs(variant, plan, store),
        scores=[store.read(key, TaskScore) for key in node.tasks.values()] if scored else [],
        timing=store.find(variant.measure, Timing) if variant.measure else None,
        divergence=store.find(variant.fidelity, TextDivergence) if variant.fidelity else None,
        failures=_failures(variant, plan, store, result),
    )


def _steps(variant: PlanVariant, store: Store) -> list[StepRecord]:
    """The chain's records up to the first that the store lacks."""
    found = []
    for key in variant.chain:
        if (record := store.find(key, StepRecord)) is None:
            break
        found.append(record)
    return found


def _failures(variant: PlanVariant, plan: Plan, store: Store, result: RunResult) -> list[Failure]:
    """Failures of a variant's own nodes. If its model failed, only that failure, because the others follow from it.

    What the store lacks although no node failed was removed by another program after the run.
    """
    node_keys = [variant.model, variant.evaluate, *filter(None, [variant.measure, variant.fidelity])]
    found = [result.failures[key] for key in node_keys if key in result.failures]
    if variant.model in result.failures:
        return found[:1]
    # The model exists but one of its ancestors does not, so its chain is unknown.
    gap = next((result.failures[key] for key in variant.chain if key in result.failures), None)
    if found or gap is not None:
        return found if gap is None else [gap]
    nodes = [plan.node(key) for key in (*variant.chain, *node_keys)]
    return [missing(node, store) for node in nodes if not is_done(node, store)][:1]


def _costs(variant: PlanVariant, plan: Plan, store: Store) -> dict[str, Cost]:
    own = (("model", variant.model), ("measure", variant.measure), ("fidelity", variant.fidelity))
    costs = {kind: cost for kind, key in own if key and (cost := store.cost(key))}
    tasks = [cost for key in plan.node(variant.evaluate).tasks.values() if (cost := store.cost(key))]
    if tasks:
        peak = max(cost.peak_memory_bytes for cost in tasks)
        seconds, devices = sum(cost.seconds for cost in tasks), max(cost.devices for cost in tasks)
        costs["evaluate"] = tasks[0].model_copy(update={"seconds": seconds, "peak_memory_bytes": peak, "devices": devices})
    return costs


def _from_answers(variant: VariantRecord, items: dict[str, dict[str, ItemScores]], plan: Plan, store: Store, read: Read) -> dict[str, Any]:
    """The fields of a variant that compare its answers with its parent's; none if one of the two has no scores."""
    if variant.name not in items or variant.parent not in items:
        return {}
    before, after = (_tables(name, plan, store) for name in (variant.parent, variant.name))
    files = {task: (before[task], after[task]) for task in after if task in before}
    parent, child = items[variant.parent], items[variant.name]
    # A replicate has no comparisons of its own: its items are not among those that a page shows.
    lost = [] if variant.replicate_of else lost_items(parent, child, files)
    return {"fidelity": fidelity(parent, child, files, read), "lost_items": lost}


def _tables(name: str, plan: Plan, store: Store) -> dict[str, Path]:
    """The files of a variant's items, by task."""
    return {task: _table(key, store) for task, key in plan.node(plan.variant(name).evaluate).tasks.items()}


def _table(key: str, store: Store) -> Path:
    return store.folder(key) / "items.parquet"


def _items(variant: PlanVariant, plan: Plan, store: Store) -> dict[str, ItemScores]:
    return {task: read_items(_table(key, store)) for task, key in plan.node(variant.evaluate).tasks.items()}


def _machine_speed(plan: Plan, store: Store) -> MachineSpeed | None:
    """This machine's measured speed, or `None` if the plan does not need it or it was not measured."""
    node = next(plan.of_kind("machine"), None)
    return store.find(node.key, MachineSpeed) if node is not None else None


def _this_machine(speed: MachineSpeed, machine: str) -> Hardware:
    """The measured machine as a hardware profile."""
    return Hardware(name=THIS_MACHINE, flops=speed.flops, bandwidth=speed.bandwidth, source=f"measured in {speed.dtype}: {machine}")
