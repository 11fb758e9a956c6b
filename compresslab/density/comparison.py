"""Child against parent: paired bootstrap over items, joined with the reference's resampled fits.

Every draw resamples the items of each task and takes one of the reference's resampled fits. All variants see the same draws of
both, so what child and parent share (hard items, the slope of the ruler) cancels in r.

r over tasks is exp(mean over tasks of ln(N_hat child / N_hat parent)) / (N child / N parent), over the tasks on which both
have an estimate. A task on which both lie beyond the same end of the ruler says nothing about r and does not enter; one
on which only the child does makes r a bound, which can decide a verdict on the side where it is known and on no other.

A study asks as many questions as it has variants. "raised" or "lowered" is said only while the false-discovery rate over all of
them, for one relation and one count of N, stays at 5% (Benjamini and Hochberg 1995).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from compresslab.catalog.hardware import Hardware
from compresslab.catalog.references import reference_names
from compresslab.density.capability import Ruler, best_estimator, density, minor_bounds
from compresslab.density.draws import MIN_ITEMS, Draws, Measured
from compresslab.density.intervals import LogEstimate, adjusted, difference, p_value, verdict
from compresslab.density.mcnemar import mcnemar
from compresslab.density.references.reference import Reference
from compresslab.density.robustness import alternatives
from compresslab.density.sample import Study, counts, prepare, task_ratio
from compresslab.density.time.inference_time import seconds
from compresslab.errors import BadInput
from compresslab.recipe.schema import DensityConfig
from compresslab.records import Comparison, Density, Estimator, Interval, TaskComparison, Verdict

GROWTH_PER_DAY = 0.007
"""A in ln(rho_max) = A t + B, t in days: growth of the densest open models (Densing Law, arXiv 2412.04315)."""

DISCOVERIES = 0.05
"""Share of false verdicts that a study may expect among those it gives."""

CHANCE = 0.8
"""How likely a verdict is to be with the items that `items_needed` asks for."""

Relation = Literal["parent", "root"]


def assess(
    variants: list[Measured], config: DensityConfig, hardware: list[Hardware], references: Iterable[str] = ()
) -> dict[str, tuple[Density, list[Comparison]]]:
    """Density of each variant, and its comparisons with its parent and, if that is another, its root.

    A parent or root that is not among `variants` (it failed, say) gives no comparison. Tasks that the reference lacks
    have no density but keep their paired differences.

    Args:
        variants: in any order, each name once.
        config: the ruler, D0, the workload, `resamples` and `seed`; the names in `config.hardware` are the caller's to resolve.
        hardware: profiles for modelled time, this machine's own among them if it was measured.
        references: other references for the table of robustness.

    Raises:
        BadInput: an unknown reference, results that are no results, or items of child and parent that do not match.
    """
    reference = Reference.load(config.reference)
    others = [Reference.load(name) for name in references if name != reference.name]
    study = prepare(variants, config, hardware)
    ruler, estimator = study.ruler(reference, config.tokens), best_estimator(reference, study.bench)
    found: dict[str, tuple[Density, list[tuple[Comparison, dict[str, float]]]]] = {}
    for variant in variants:
        read = {task: study.capability(ruler, variant.name, task) for task in variant.tasks}
        taken = {h.name: seconds(variant.shape, variant.size, h, config.workload) for h in hardware}
        own = density(ruler, estimator, variant.size, read, study.times[variant.name], taken, published=bool(variant.published))
        compared = []
        for other, relation in _relatives(variant, study.variants):
            comparison, tails = _compare(study, ruler, estimator, variant, other, relation)
            table = alternatives(study, ruler, estimator, comparison, variant.name, others)
            compared.append((comparison.model_copy(update={"robustness": table}), tails))
        found[variant.name] = (own, compared)
    return _corrected(found)


def density_days(r: Interval | None) -> Interval | None:
    """ln(r) / A: days of the field's progress that r is worth. An end of r at 0 gives minus infinity."""
    if r is None:
        return None
    days = [-math.inf if end <= 0 else math.log(end) / GROWTH_PER_DAY for end in (r.value, r.low, r.high)]
    return Interval(value=days[0], low=days[1], high=days[2], extrapolated=r.extrapolated, bound=r.bound)


def compare(child: Measured, parent: Measured, config: DensityConfig | None = None, hardware: Iterable[Hardware] = ()) -> Comparison:
    """One model against another, as a study of the two would: the density ratio r of `child` to `parent` with its 95% interval, verdict,
    density-days and what other choices would have said.

    Args:
        child, parent: what they weigh and answered: the same items, or scores of one published table.
        config: the reference (default: the OLMo ladder), D0, seed, resamples.
        hardware: profiles for r by modelled time.

    Raises:
        BadInput: as `assess`.
    """
    root = parent.model_copy(update={"parent": "", "root": parent.name})
    leaf = child.model_copy(update={"parent": parent.name, "root": parent.name})
    return assess([root, leaf], config or DensityConfig(), list(hardware), reference_names())[child.name][1][0]


def _relatives(variant: Measured, by_name: Mapping[str, Measured]) -> list[tuple[Measured, Relation]]:
    relatives: list[tuple[Measured, Relation]] = []
    if variant.parent in by_name and variant.parent != variant.name:
        relatives.append((by_name[variant.parent], "parent"))
    if variant.root in by_name and variant.root not in (variant.parent, variant.name):
        relatives.append((by_name[variant.root], "root"))
    return relatives


def _compare(
    study: Study, ruler: Ruler, estimator: Estimator, child: Measured, parent: Measured, relation: Relation
) -> tuple[Comparison, dict[str, float]]:
    """The comparison with verdicts by the intervals alone, and the p of each."""
    if set(child.items) != set(parent.items):
        raise BadInput(f"{child.name} answered {sorted(child.items)}, but {parent.name} {sorted(parent.items)}: nothing pairs them")
    unlike = _other_questions(child, parent)
    shared = [task for task in child.tasks if task in parent.tasks and task not in unlike]
    of = counts(study, child, parent)
    tasks = [_on_task(study, ruler, child, parent, task, of["params"]) for task in shared]
    effective = study.effective(ruler, child.name, parent.name, shared, estimator)
    by_score = study.effective(ruler, child.name, parent.name, shared, "score")
    over = {} if effective is None else {name: effective.over(n) for name, n in of.items()}
    if by_score is not None:
        over["score"] = by_score.over(of["params"])
    r = {name: estimate.interval() for name, estimate in over.items()}
    timed = {name.removeprefix("time/"): interval for name, interval in r.items() if name.startswith("time/")}
    comparison = Comparison(
        against=parent.name,
        relation=relation,
        ratio=r.get("params"),
        ratio_by_score=r.get("score"),
        ratio_bits=r.get("bits"),
        ratio_active=r.get("active"),
        ratio_time=timed,
        verdict=verdict(r.get("params")),
        verdict_by_score=verdict(r.get("score")),
        verdict_bits=verdict(r.get("bits")),
        verdict_time={name: verdict(interval) for name, interval in timed.items()},
        density_days=density_days(r.get("params")),
        tasks=tasks,
        resamples=study.config.resamples,
        seed=study.config.seed,
        estimator=estimator,
        items_needed=_items_needed(study, ruler, estimator, child, parent, shared, over.get("params")),
        reason="; ".join(filter(None, [*unlike.values(), _reason(study, ruler, estimator, child, parent, shared)])),
    )
    return comparison, {name: p_value(estimate) for name, estimate in over.items()}


def _corrected(
    found: Mapping[str, tuple[Density, list[tuple[Comparison, dict[str, float]]]]],
) -> dict[str, tuple[Density, list[Comparison]]]:
    """Let the verdicts stand that survive the correction for how many the study asks, one family for each relation and count of N."""
    families: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for name, (_, compared) in found.items():
        for comparison, tails in compared:
            for basis, p in tails.items():
                families.setdefault((comparison.relation, basis), []).append((name, p))
    q = {
        (relation, basis, name): value
        for (relation, basis), members in families.items()
        for (name, _), value in zip(members, adjusted([p for _, p in members]), strict=True)
    }

    def stands(name: str, comparison: Comparison, basis: str, said: Verdict) -> Verdict:
        return said if q.get((comparison.relation, basis, name), 1.0) <= DISCOVERIES else "inconclusive"

    result = {}
    for name, (own, compared) in found.items():
        final = []
        for comparison, tails in compared:
            said = stands(name, comparison, "params", comparison.verdict)
            update: dict[str, Any] = {
                "verdict": said,
                "verdict_by_score": stands(name, comparison, "score", comparison.verdict_by_score),
                "verdict_bits": stands(name, comparison, "bits", comparison.verdict_bits),
                "verdict_time": {h: stands(name, comparison, f"time/{h}", v) for h, v in comparison.verdict_time.items()},
                "p": tails.get("params"),
                "q": q.get((comparison.relation, "params", name)),
                "fragile": said != "inconclusive" and any(row.flips for row in comparison.robustness),
                "items_needed": comparison.items_needed if said == "inconclusive" else None,
            }
            final.append(comparison.model_copy(update=update))
        result[name] = (own, final)
    return result


def _on_task(study: Study, ruler: Ruler, child: Measured, parent: Measured, task: str, params: float) -> TaskComparison:
    if task in child.items:
        _same_items(child, parent, task)
    ours, theirs = study.capability(ruler, child.name, task), study.capability(ruler, parent.name, task)
    answered, before = study.bench[child.name, task], study.bench[parent.name, task]
    loss, loss_before = answered.losses.get("bits per byte"), before.losses.get("bits per byte")
    score, score_before = answered.score.values, before.score.values
    changed = None if score is None or score_before is None else mcnemar(score_before, score)
    return TaskComparison(
        task=task,
        items=child.count(task),
        bits_per_byte=None if loss is None or loss_before is None else _loss_difference(loss, loss_before),
        accuracy=_score_difference(answered.score, before.score),
        ratio_by_loss=_over(task_ratio(ours, theirs, "loss"), params),
        ratio_by_score=_over(task_ratio(ours, theirs, "score"), params),
        lost=None if changed is None else changed.lost,
        gained=None if changed is None else changed.gained,
        mcnemar=None if changed is None else changed.p,
    )


def _items_needed(
    study: Study, ruler: Ruler, estimator: Estimator, child: Measured, parent: Measured, tasks: list[str], r: LogEstimate | None
) -> float | None:
    """Items a task that would decide r with 80% chance, if it is what it seems: the items' part of its variance falls as 1 / items, the
    ruler's stays. What the study's number of questions asks beyond 5% is asked here too."""
    if r is None or r.bound or not tasks:
        return None
    of_items, of_ruler = (study.spread_of(what, ruler, child.name, parent.name, tasks, estimator) ** 2 for what in ("items", "ruler"))
    questions = max(1, len(study.variants) - 1)
    power = NormalDist().inv_cdf(1 - DISCOVERIES / 2 / questions) + NormalDist().inv_cdf(CHANCE)
    room = (r.point / power) ** 2 - of_ruler
    mean_items = float(np.mean([child.count(task) for task in tasks]))
    if not room > 0 or not math.isfinite(of_items):
        return math.inf
    return max(mean_items * of_items / room, mean_items + 1)


def _reason(study: Study, ruler: Ruler, estimator: Estimator, child: Measured, parent: Measured, shared: list[str]) -> str:
    """What is special about a comparison, or why it has no ratio."""
    if not shared:
        return f"{child.name} and {parent.name} have no benchmark in common"
    ratios = study.ratios(ruler, child.name, parent.name, shared, estimator)
    if all(one is None for one in ratios.values()):
        return "no task tells both of them on the ruler"
    found = []
    if child.table != parent.table:
        found.append(f"from different tables ({child.table} and {parent.table}): their settings may differ by more than the models do")
    without = [task for task, one in ratios.items() if one is None]
    without += minor_bounds(ratios) if child.published else []
    if without:
        found.append(
            f"without {', '.join(without)}, which {'tells' if len(without) == 1 else 'tell'} no more than a bound here, or nothing"
        )
    return "; ".join(found)


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


def _other_questions(child: Measured, parent: Measured) -> dict[str, str]:
    """Tasks in which items of one name were other questions, each with what to say of it. They pair nothing."""
    found = {}
    for task in child.items:
        ours, theirs = child.items[task], parent.items[task]
        if ours.item == theirs.item and ours.prompt_hash and theirs.prompt_hash and ours.prompt_hash != theirs.prompt_hash:
            first = next(item for item, a, b in zip(ours.item, ours.prompt_hash, theirs.prompt_hash, strict=True) if a != b)
            found[task] = (
                f"{task} is left out: {child.name} and {parent.name} were asked different questions under the same names, first in item "
                f"{first}, because the task's data changed between the two evaluations; evaluate both in a new store"
            )
    return found


def _over(estimate: LogEstimate | None, divisor: float) -> Interval | None:
    return None if estimate is None else estimate.over(divisor).interval()


def _loss_difference(child: Draws, parent: Draws) -> Interval | None:
    """Paired difference in bits per byte; `None` where the items cannot tell how sure it is."""
    if child.values is None or parent.values is None:
        return None
    paired = child.values - parent.values
    if len(paired) < MIN_ITEMS or (np.ptp(paired) == 0 and paired[0] != 0):
        return None
    return difference(child.mean, parent.mean, child.means - parent.means)


def _score_difference(child: Draws, parent: Draws) -> Interval:
    """Difference in accuracy, paired where there are items, with the widest interval there is when there are too few.

    Where every item gave the same difference the bootstrap has no spread; then the rule of three holds: what did not
    happen in n items happens, at 95%, in fewer than 3 of n.
    """
    value = child.mean - parent.mean
    if child.values is not None and parent.values is not None:
        paired = child.values - parent.values
        if len(paired) < MIN_ITEMS:
            return Interval(value=value, low=-1.0, high=1.0)
        if np.ptp(paired) == 0:
            reach = 3 / len(paired)
            return Interval(value=value, low=max(value - reach, -1.0), high=min(value + reach, 1.0))
    return difference(child.mean, parent.mean, child.means - parent.means)
