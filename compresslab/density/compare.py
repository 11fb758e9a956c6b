"""Child against parent: paired bootstrap over items, joined with the reference's resampled fits.

Every draw resamples the items of each task and takes one of the reference's resampled fits. All variants see the same
draws of both, so what child and parent share (hard items, the slope of the ruler) cancels in r. Random streams depend
on the seed and the task alone: adding a variant to a study changes no figure of the others.

r over tasks is exp(mean over tasks of ln(N_hat child / N_hat parent)) / (N child / N parent), over the tasks on which both
have an estimate. A task on which both lie beyond the same end of the ruler says nothing about r and does not enter; one
on which only the child does makes r a bound, which can decide a verdict on the side where it is known and on no other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from compresslab.density.capability import (
    MIN_ITEMS,
    Draws,
    TaskCapability,
    bits_count,
    check,
    density,
    measure_task,
    resampled_means,
    stream,
)
from compresslab.density.inference_time import Hardware, n_time, seconds
from compresslab.density.intervals import LogEstimate, difference, geometric_mean, ratio, verdict
from compresslab.density.reference import Reference
from compresslab.errors import BadInput
from compresslab.recipe.schema import DensityConfig
from compresslab.records import Comparison, Density, Interval, ItemScores, Record, Shape, Size, TaskComparison

GROWTH_PER_DAY = 0.007
"""A in ln(rho_max) = A t + B, t in days: growth of the densest open models (Densing Law, arXiv 2412.04315)."""


class Measured(Record):
    """What one variant weighs and how it answered. `parent` is "" for the root; `items` is by task name."""

    name: str
    parent: str = ""
    root: str
    size: Size
    shape: Shape
    items: dict[str, ItemScores]


Columns = dict[tuple[str, str], tuple[Draws | None, Draws]]
"""By (variant, task): bits per byte (if the task has them) and accuracy, with their draws."""


def assess(variants: list[Measured], config: DensityConfig, hardware: list[Hardware]) -> dict[str, tuple[Density, list[Comparison]]]:
    """Density of each variant, and its comparisons with its parent and, if that is another, its root.

    A parent or root that is not among `variants` (it failed, say) gives no comparison. Tasks that the reference lacks
    have no density but keep their paired differences.

    Args:
        variants: in any order, each name once.
        config: the ruler, D0, the workload, `resamples` and `seed`; the names in `config.hardware` are the caller's to resolve.
        hardware: profiles for modelled time, this machine's own among them if it was measured.

    Raises:
        BadInput: an unknown reference, per-item results that are no results, or items of child and parent that do not match.
    """
    reference = Reference.load(config.reference)
    by_name = {variant.name: variant for variant in variants}
    if len(by_name) != len(variants):
        raise BadInput("two variants have the same name")
    for variant in variants:
        if variant.size.counted <= 0 or variant.size.effective_bits <= 0:
            raise BadInput(f"{variant.name}: {variant.size.counted} parameters of {variant.size.effective_bits} bits")
        for task, scores in variant.items.items():
            check(variant.name, task, scores)

    columns = _draw(variants, config)
    rows = stream(config.seed, "reference").integers(reference.resamples, size=config.resamples) + 1
    capabilities = {
        variant.name: {task: measure_task(reference, task, *columns[variant.name, task], config.tokens, rows) for task in variant.items}
        for variant in variants
    }
    times = {v.name: {h.name: n_time(v.shape, v.size, h, config.workload) for h in hardware} for v in variants}
    result = {}
    for variant in variants:
        taken = {h.name: seconds(variant.shape, variant.size, h, config.workload) for h in hardware}
        comparisons = [
            _compare(variant, other, relation, columns, capabilities, times, config) for other, relation in _relatives(variant, by_name)
        ]
        result[variant.name] = (
            density(reference, config.tokens, variant.size, capabilities[variant.name], times[variant.name], taken),
            comparisons,
        )
    return result


def _relatives(variant: Measured, by_name: Mapping[str, Measured]) -> list[tuple[Measured, Literal["parent", "root"]]]:
    relatives: list[tuple[Measured, Literal["parent", "root"]]] = []
    if variant.parent in by_name and variant.parent != variant.name:
        relatives.append((by_name[variant.parent], "parent"))
    if variant.root in by_name and variant.root not in (variant.parent, variant.name):
        relatives.append((by_name[variant.root], "root"))
    return relatives


def _draw(variants: Sequence[Measured], config: DensityConfig) -> Columns:
    """Resample items: for each task the same draws for all variants that answered equally many items."""
    columns: Columns = {}
    for task in dict.fromkeys(task for variant in variants for task in variant.items):
        answered = [variant for variant in variants if task in variant.items]
        for n in sorted({len(variant.items[task].item) for variant in answered}):
            same = [variant.items[task] for variant in answered if len(variant.items[task].item) == n]
            values = [list(scores.correct) for scores in same]
            values += [list(scores.bits_per_byte) for scores in same if scores.bits_per_byte is not None]
            matrix = np.array(values, dtype=np.float64).T
            means = resampled_means(matrix, config.resamples, stream(config.seed, task))
            drawn = [Draws(matrix[:, i], float(matrix[:, i].mean()), means[:, i]) for i in range(matrix.shape[1])]
            losses = iter(drawn[len(same) :])
            names = [variant.name for variant in answered if len(variant.items[task].item) == n]
            for name, scores, score in zip(names, same, drawn, strict=False):
                columns[name, task] = (next(losses) if scores.bits_per_byte is not None else None, score)
    return columns


def _compare(
    child: Measured,
    parent: Measured,
    relation: Literal["parent", "root"],
    columns: Columns,
    capabilities: Mapping[str, Mapping[str, TaskCapability]],
    times: Mapping[str, Mapping[str, float]],
    config: DensityConfig,
) -> Comparison:
    if set(child.items) != set(parent.items):
        raise BadInput(f"{child.name} answered {sorted(child.items)}, but {parent.name} {sorted(parent.items)}: nothing pairs them")
    params = child.size.counted / parent.size.counted
    tasks, by_loss, by_score = [], [], []
    for task, scores in child.items.items():
        _same_items(child, parent, task)
        ours, theirs = capabilities[child.name][task], capabilities[parent.name][task]
        loss_ratio, score_ratio = _ratio(ours.by_loss, theirs.by_loss), _ratio(ours.by_score, theirs.by_score)
        by_loss += [loss_ratio] if loss_ratio is not None else []
        by_score += [score_ratio] if score_ratio is not None else []
        (child_loss, child_score), (parent_loss, parent_score) = columns[child.name, task], columns[parent.name, task]
        tasks.append(
            TaskComparison(
                task=task,
                items=len(scores.item),
                bits_per_byte=None if child_loss is None or parent_loss is None else _loss_difference(child_loss, parent_loss),
                accuracy=_score_difference(child_score, parent_score),
                ratio_by_loss=_over(loss_ratio, params),
                ratio_by_score=_over(score_ratio, params),
            )
        )
    effective = geometric_mean(by_loss)
    ratio_params = _over(effective, params)
    ratio_score = _over(geometric_mean(by_score), params)
    ratio_bits = _over(effective, bits_count(child.size) / bits_count(parent.size))
    ratio_time = (
        {}
        if effective is None
        else {name: effective.over(n / times[parent.name][name]).interval() for name, n in times[child.name].items()}
    )
    return Comparison(
        against=parent.name,
        relation=relation,
        ratio=ratio_params,
        ratio_by_score=ratio_score,
        ratio_bits=ratio_bits,
        ratio_time=ratio_time,
        verdict=verdict(ratio_params),
        verdict_by_score=verdict(ratio_score),
        verdict_bits=verdict(ratio_bits),
        verdict_time={name: verdict(interval) for name, interval in ratio_time.items()},
        density_days=density_days(ratio_params),
        tasks=tasks,
        resamples=config.resamples,
        seed=config.seed,
    )


def density_days(r: Interval | None) -> Interval | None:
    """ln(r) / A: days of the field's progress that r is worth. An end of r at 0 gives minus infinity."""
    if r is None:
        return None
    days = [-math.inf if end <= 0 else math.log(end) / GROWTH_PER_DAY for end in (r.value, r.low, r.high)]
    return Interval(value=days[0], low=days[1], high=days[2], extrapolated=r.extrapolated, bound=r.bound)


def _same_items(child: Measured, parent: Measured, task: str) -> None:
    ours, theirs = child.items[task], parent.items[task]
    if ours.item != theirs.item:
        pairs = enumerate(zip(ours.item, theirs.item, strict=False))
        differ = next((i for i, (a, b) in pairs if a != b), min(len(ours.item), len(theirs.item)))
        raise BadInput(
            f"{child.name} and {parent.name} did not answer the same items of {task} ({len(ours.item)} and {len(theirs.item)}; "
            f"they differ from number {differ + 1} on); evaluate both on the same items"
        )
    if ours.gold != theirs.gold:
        raise BadInput(f"{child.name} and {parent.name} have different right answers for {task}")


def _ratio(child: LogEstimate | None, parent: LogEstimate | None) -> LogEstimate | None:
    return None if child is None or parent is None else ratio(child, parent)


def _over(estimate: LogEstimate | None, divisor: float) -> Interval | None:
    return None if estimate is None else estimate.over(divisor).interval()


def _loss_difference(child: Draws, parent: Draws) -> Interval | None:
    """Paired difference in bits per byte; `None` where the items cannot tell how sure it is."""
    paired = child.values - parent.values
    if len(paired) < MIN_ITEMS or (np.ptp(paired) == 0 and paired[0] != 0):
        return None
    return difference(child.mean, parent.mean, child.means - parent.means)


def _score_difference(child: Draws, parent: Draws) -> Interval:
    """Paired difference in accuracy, with the widest interval there is when there are too few items.

    Where every item gave the same difference the bootstrap has no spread; then the rule of three holds: what did not
    happen in n items happens, at 95%, in fewer than 3 of n.
    """
    paired, value = child.values - parent.values, child.mean - parent.mean
    if len(paired) < MIN_ITEMS:
        return Interval(value=value, low=-1.0, high=1.0)
    if np.ptp(paired) == 0:
        reach = 3 / len(paired)
        return Interval(value=value, low=max(value - reach, -1.0), high=min(value + reach, 1.0))
    return difference(child.mean, parent.mean, child.means - parent.means)
