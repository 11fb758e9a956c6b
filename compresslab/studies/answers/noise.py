"""The noise floors of a study: what its steps change, beside what the replicates of a step differ by on the same items."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from compresslab.density.noise import noise_floor
from compresslab.density.pairing import pairs
from compresslab.records import Comparison, DivergenceFloor, ItemScores, Noise, NoiseFloor, VariantRecord
from compresslab.records.noise import AnswerDifference, Quantity
from compresslab.studies.answers.fidelity import option_divergence, share_changed, side
from compresslab.studies.answers.stored import Read

Relation = Literal["parent", "root", "sibling"]


class Scored(NamedTuple):
    """What is known of each variant's answers, by variant and task: the items, and the paths of their files."""

    items: Mapping[str, Mapping[str, ItemScores]]
    files: Mapping[str, Mapping[str, Path]]


def noise_floors(variants: Sequence[VariantRecord], scored: Scored, read: Read) -> dict[str, Noise]:
    """The noise floors of every variant that has two replicates or more with scores, by name.

    A variant is compared with its parent if the replicated step is its own last one, with the base, and with each later sibling that has
    replicates of its own. A variant without replicates has no floor: no spread is taken over from another one.
    """
    by_name = {variant.name: variant for variant in variants if variant.name in scored.items}
    groups: dict[str, list[VariantRecord]] = {name: [one] for name, one in by_name.items() if not one.replicate_of}
    for variant in by_name.values():
        if variant.replicate_of in groups:
            groups[variant.replicate_of].append(variant)
    groups = {name: group for name, group in groups.items() if len(group) > 1}
    found = {}
    for number, (name, group) in enumerate(groups.items()):
        first, differences, divergences = group[0], list[NoiseFloor](), list[DivergenceFloor]()
        # A step after the replicated one is done on each replicate, so its parents differ as well.
        own_step = all(one.parent == first.parent for one in group)
        if own_step and first.parent in by_name:
            differences += _differences(group, [by_name[first.parent]], "parent", scored)
            divergences += _divergences(group, by_name[first.parent], scored, read)
        if first.root in by_name and first.root != first.parent:
            differences += _differences(group, [by_name[first.root]], "root", scored)
        for other in list(groups.values())[number + 1 :]:
            if own_step and all(one.parent == first.parent for one in other):
                differences += _differences(group, other, "sibling", scored)
        found[name] = Noise(differences=differences, divergences=divergences)
    return found


def _differences(
    group: Sequence[VariantRecord], others: Sequence[VariantRecord], relation: Relation, scored: Scored
) -> Iterator[NoiseFloor]:
    """Each quantity of a replicated variant less that of another model: the mean over tasks and every task, and the density."""
    names = [one.name for one in (*group, *others)]
    means: dict[Quantity, dict[str, tuple[int, list[float]]]] = {"accuracy": {}, "bits per byte": {}}
    for task, rows in _asked_alike(names, scored).items():
        columns = [(scored.items[name][task], own) for name, own in zip(names, rows, strict=True)]
        means["accuracy"][task] = len(rows[0]), [_mean(items.correct, own) for items, own in columns]
        losses = [items.bits_per_byte for items, _ in columns]
        if all(loss is not None for loss in losses):
            found = [_mean(loss, own) for loss, (_, own) in zip(losses, columns, strict=True) if loss is not None]
            means["bits per byte"][task] = len(rows[0]), found
    for quantity, by_task in means.items():
        for task, (items, values) in _with_mean(by_task).items():
            yield _floor(others[0].name, relation, quantity, task, items, values[: len(group)], values[len(group) :])
    if (logs := _log_densities(group, others, relation)) is not None:
        items = sum(items for items, _ in means["accuracy"].values())
        yield _floor(others[0].name, relation, "ln density", "", items, *logs)


def _floor(
    against: str, relation: Relation, quantity: Quantity, task: str, items: int, values: list[float], others: list[float]
) -> NoiseFloor:
    spread = noise_floor(values, others)
    return NoiseFloor(
        against=against, relation=relation, quantity=quantity, task=task, items=items, values=values, others=others, **spread._asdict()
    )


def _asked_alike(names: Sequence[str], scored: Scored) -> dict[str, list[list[int]]]:
    """For each task that all models answered, the rows of each model with the items that all were asked alike."""
    found = {}
    for task, first in scored.items[names[0]].items():
        if all(task in scored.items[name] for name in names):
            places = [dict(pairs(first, scored.items[name][task])) for name in names]
            common = [row for row in range(len(first.item)) if all(row in own for own in places)]
            if common:
                found[task] = [[own[row] for row in common] for own in places]
    return found


def _mean(column: Sequence[float], rows: Sequence[int]) -> float:
    return float(np.mean([column[row] for row in rows]))


def _with_mean(by_task: Mapping[str, tuple[int, list[float]]]) -> dict[str, tuple[int, list[float]]]:
    """The mean over the tasks, by "", before each task's own. A single task is that mean."""
    if not by_task:
        return {}
    items, values = zip(*by_task.values(), strict=True)
    return {"": (sum(items), np.mean(values, axis=0).tolist()), **(by_task if len(by_task) > 1 else {})}


def _log_densities(
    group: Sequence[VariantRecord], others: Sequence[VariantRecord], relation: Relation
) -> tuple[list[float], list[float]] | None:
    """ln r of each replicate and 0, against a parent or base; against a sibling ln of the density of each, by the count of the headline.

    `None` where a density is a bound or is missing.
    """
    if relation != "sibling":
        comparison = next((one for one in group[0].comparisons if one.against == others[0].name), None)
        ratios = comparison.ratio_of_each if comparison else []
        return ([math.log(one) for one in ratios], [0.0]) if len(ratios) == len(group) else None
    counts = {comparison.count for first in (group[0], others[0]) if (comparison := _to_parent(first)) is not None}
    count = counts.pop() if len(counts) == 1 else "params"
    sides: list[list[float]] = []
    for models in (group, others):
        found = [one.density.by(count) if one.density else None for one in models]
        sides.append([math.log(one.value) for one in found if one is not None and not one.bound])
        if len(sides[-1]) < len(models):
            return None
    return sides[0], sides[1]


def _to_parent(variant: VariantRecord) -> Comparison | None:
    return next((one for one in variant.comparisons if one.against == variant.parent), None)


def _divergences(group: Sequence[VariantRecord], parent: VariantRecord, scored: Scored, read: Read) -> Iterator[DivergenceFloor]:
    """How far the replicates answer from the parent and from one another, for each task and in the mean over tasks."""
    names = [parent.name, *(one.name for one in group)]
    found: dict[AnswerDifference, dict[str, tuple[int, list[float]]]] = {"KL of options": {}, "answers changed": {}}
    for task, rows in _asked_alike(names, scored).items():
        sides = [side(scored.items[name][task], read(scored.files[name][task]), own) for name, own in zip(names, rows, strict=True)]
        ordered = [(0, place) for place in range(1, len(names))] + list(itertools.permutations(range(1, len(names)), 2))
        kls = [option_divergence(sides[before], sides[after]) for before, after in ordered]
        if all(kl is not None for kl in kls):
            found["KL of options"][task] = len(rows[0]), [kl.value for kl in kls if kl is not None]
        changes = [share_changed(sides[before], sides[after]) for before, after in ordered]
        if all(share is not None for share in changes):
            found["answers changed"][task] = len(rows[0]), [share for share in changes if share is not None]
    for quantity, by_task in found.items():
        for task, (items, values) in _with_mean(by_task).items():
            to_parent, between = values[: len(group)], values[len(group) :]
            yield DivergenceFloor(against=parent.name, quantity=quantity, task=task, items=items, to_parent=to_parent, between=between)
