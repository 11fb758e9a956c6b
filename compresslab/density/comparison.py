"""Child against parent: paired bootstrap over items, joined with the reference's resampled fits.

Every draw resamples the items of each task and takes one of the reference's resampled fits. All variants use the same draws of
both, so what child and parent have in common (hard items, the slope of the reference) cancels in r.

r over tasks is exp(mean over tasks of ln(N_hat child / N_hat parent)) / (N child / N parent), over the tasks on which both
have an estimate. A task on which both lie beyond the same end of the reference gives no information about r and is left out. A task on
which only the child does makes r a bound, which can decide a verdict only on its known side.

A study tests as many hypotheses as it has variants. The verdicts "raised" and "lowered" are given at a false-discovery rate of 5% over
all variants that are compared with their parent, each by the count of N that its step changed, and likewise over those compared with the
root (Benjamini and Hochberg 1995). Verdicts by another count are a family for each count.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from typing import Any, Literal

import numpy as np

from compresslab.catalog.hardware import Hardware
from compresslab.catalog.published_settings import TASKS, mismatch
from compresslab.catalog.references import reference_names
from compresslab.density.capability import Ruler, best_estimator, density, minor_bounds
from compresslab.density.draws import MIN_ITEMS, Draws, Measured, check
from compresslab.density.intervals import LogEstimate, adjusted, difference, p_value, verdict
from compresslab.density.items_needed import items_needed
from compresslab.density.mcnemar import mcnemar
from compresslab.density.pairing import unpaired_tasks
from compresslab.density.references.budget import budget_of
from compresslab.density.references.reference import Reference
from compresslab.density.replicates import spreads
from compresslab.density.robustness import alternatives
from compresslab.density.sample import DrawnStudy, counts, headline_count, prepare
from compresslab.errors import BadInput
from compresslab.recipe.schema import DensityConfig
from compresslab.records import Comparison, Density, Estimator, Interval, TaskComparison, Verdict

GROWTH_PER_DAY = 0.007
"""A in ln(rho_max) = A t + B, t in days: growth of the densest open models (Densing Law, arXiv 2412.04315)."""

FALSE_DISCOVERY_RATE = 0.05
"""Expected share of false verdicts among the "raised" and "lowered" of a study."""

Relation = Literal["parent", "root"]
HEADLINE = "headline"
"""The family of the verdicts that the page shows, each by the count of N that its step changed."""


def assess(
    variants: list[Measured], config: DensityConfig, hardware: list[Hardware], references: Iterable[str] = ()
) -> dict[str, tuple[Density, list[Comparison]]]:
    """Density of each variant, and its comparisons with its parent and, if different, its root.

    A parent or root that is not among `variants`, for example because it failed, gives no comparison. Tasks that the reference lacks
    have no density but have their paired differences.

    Args:
        variants: in any order, each name once.
        config: the reference, D0, the workload, `resamples` and `seed`. The caller resolves the names in `config.hardware`.
        hardware: profiles for modelled time, including this machine's own if it was measured.
        references: other references for the table of robustness.

    Raises:
        BadInput: an unknown reference, invalid results, or child and parent that answered other tasks.
    """
    reference = Reference.load(config.reference)
    others = [Reference.load(name) for name in references if name != reference.name]
    for variant in variants:
        for task, items in variant.items.items():
            check(variant.name, task, items)
    left_out = _unpaired(variants)
    variants = [_without(variant, left_out) for variant in variants]
    study = prepare(variants, config, hardware)
    ruler, estimator = study.ruler(reference, budget_of(config)), best_estimator(reference, study.draws)
    assessed: dict[str, tuple[Density, list[tuple[Comparison, dict[str, float]]]]] = {}
    for variant in variants:
        capabilities = {task: study.capability(ruler, variant.name, task) for task in variant.tasks}
        times = study.times[variant.name]
        own_density = density(ruler, estimator, variant.size, variant.shape, capabilities, times, published=bool(variant.published))
        compared = []
        for other, relation in _relatives(variant, study.variants):
            comparison, p_values = _compare(study, ruler, estimator, variant, other, relation, tuple(left_out.values()))
            table = alternatives(study, ruler, estimator, comparison, variant.name, others)
            compared.append((comparison.model_copy(update={"robustness": table}), p_values))
        assessed[variant.name] = (own_density, compared)
    return _correct_verdicts(assessed, {variant.name: variant.root for variant in variants})


def density_days(r: Interval | None) -> Interval | None:
    """ln(r) / A: the days in which the densest open models improve by r. An end of r at 0 gives minus infinity."""
    if r is None:
        return None
    days = [-math.inf if end <= 0 else math.log(end) / GROWTH_PER_DAY for end in (r.value, r.low, r.high)]
    return Interval(value=days[0], low=days[1], high=days[2], extrapolated=r.extrapolated, bound=r.bound)


def compare(child: Measured, parent: Measured, config: DensityConfig | None = None, hardware: Iterable[Hardware] = ()) -> Comparison:
    """Compare two models as a study of the two does: the density ratio r of `child` to `parent` with its 95% interval, verdict,
    density-days and the ratios under other choices.

    Args:
        child, parent: sizes and results on the same items, or scores of one published table.
        config: the reference (default: the OLMo ladder), D0, seed, resamples.
        hardware: profiles for r by modelled time.

    Raises:
        BadInput: as `assess`.
    """
    root = parent.model_copy(update={"parent": "", "root": parent.name, "replicates": {}})
    leaf = child.model_copy(update={"parent": parent.name, "root": parent.name, "replicates": {}})
    return assess([root, leaf], config or DensityConfig(), list(hardware), reference_names())[child.name][1][0]


def _relatives(variant: Measured, by_name: Mapping[str, Measured]) -> list[tuple[Measured, Relation]]:
    relatives: list[tuple[Measured, Relation]] = []
    if variant.replicate:
        return relatives
    if variant.parent in by_name and variant.parent != variant.name:
        relatives.append((by_name[variant.parent], "parent"))
    if variant.root in by_name and variant.root not in (variant.parent, variant.name):
        relatives.append((by_name[variant.root], "root"))
    return relatives


def _unpaired(variants: Iterable[Measured]) -> dict[str, str]:
    """Tasks that do not pair every variant with its parent and root, each with the reason. The whole study goes without them.

    Densities, ratios to parents and ratios to the root then rest on the same tasks.
    """
    by_name = {variant.name: variant for variant in variants}
    pairs = [(variant, other) for variant in by_name.values() for other, _ in _relatives(variant, by_name)]
    return {task: reason for child, parent in pairs for task, reason in unpaired_tasks(child, parent).items()}


def _without(variant: Measured, tasks: Container[str]) -> Measured:
    return variant.model_copy(update={"items": {task: items for task, items in variant.items.items() if task not in tasks}})


def _compare(
    study: DrawnStudy, ruler: Ruler, estimator: Estimator, child: Measured, parent: Measured, relation: Relation, notes: tuple[str, ...]
) -> tuple[Comparison, dict[str, float]]:
    """The comparison with uncorrected verdicts, and the p of each by count of N. `notes` say which tasks are left out."""
    if set(child.items) != set(parent.items):
        raise BadInput(f"{child.name} answered {sorted(child.items)}, but {parent.name} {sorted(parent.items)}: nothing pairs them")
    shared = [task for task in child.tasks if task in parent.tasks]
    count_ratios, own_times = counts(study, child, parent), study.times[child.name]
    tasks = [_compare_task(study, ruler, child, parent, task, child.size.counted / parent.size.counted) for task in shared]
    effective = study.effective(ruler, child.name, parent.name, shared, estimator)
    by_score = study.effective(ruler, child.name, parent.name, shared, "score")
    ratios = {} if effective is None else {name: effective.over(n) for name, n in count_ratios.items()}
    if by_score is not None:
        ratios["score"] = by_score.over(count_ratios["params"])
    r = {name: estimate.interval() for name, estimate in ratios.items()}
    timed = {name.removeprefix("time/"): interval for name, interval in r.items() if name.startswith("time/")}
    count = headline_count(child, parent)
    synthesis = study.synthesis(ruler, child.name, parent.name, shared, estimator) if child.published else None
    prediction = None if synthesis is None or synthesis.prediction is None else synthesis.prediction.over(count_ratios[count]).interval()
    task_ratios = study.ratios(ruler, child.name, parent.name, shared, estimator)
    minor = minor_bounds(task_ratios) if child.published else []
    comparison = Comparison(
        against=parent.name,
        relation=relation,
        ratio=r.get("params"),
        ratio_by_score=r.get("score"),
        ratio_bits=r.get("bits"),
        ratio_active=r.get("active"),
        ratio_time=timed,
        time_ratio={name: time.relative.over(study.times[parent.name][name].relative).interval() for name, time in own_times.items()},
        verdict=verdict(r.get("params")),
        verdict_by_score=verdict(r.get("score")),
        verdict_bits=verdict(r.get("bits")),
        verdict_active=verdict(r.get("active")),
        verdict_time={name: verdict(interval) for name, interval in timed.items()},
        density_days=density_days(r.get(count)),
        tasks=tasks,
        resamples=study.config.resamples,
        seed=study.config.seed,
        estimator=estimator,
        runs_apart=len(child.runs_apart(parent)) + len(parent.runs_apart(child)),
        items_needed=items_needed(study, ruler, estimator, child, parent, shared, ratios.get(count), FALSE_DISCOVERY_RATE),
        reason="; ".join([*notes, *_remarks(study, ruler, estimator, child, parent, shared, notes)]),
        count=count,
        rests_on=[task for task, ratio in task_ratios.items() if ratio is not None and task not in minor],
        prediction=prediction,
        heterogeneity=None if prediction is None or synthesis is None else synthesis.heterogeneity,
        **spreads(study, ruler, estimator, child, parent, shared, ratios.get(count)),
    )
    heavy_tails = comparison.spread_of_replicates is not None
    return comparison, {name: p_value(estimate, heavy_tails=heavy_tails) for name, estimate in ratios.items()}


def _correct_verdicts(
    assessed: Mapping[str, tuple[Density, list[tuple[Comparison, dict[str, float]]]]], roots: Mapping[str, str]
) -> dict[str, tuple[Density, list[Comparison]]]:
    """Correct the verdicts for multiple testing. `roots`: the root of each variant.

    A family of tests is what stands in one column of the page: the verdicts against the parent, each by the count of its own headline.
    Verdicts by another count than the headline's are a family for each such count. Against the root likewise; that of a child of the
    root is one of both families, and is decided among the verdicts against the parent.
    """
    families: dict[tuple[Relation, str], dict[str, float]] = {}
    for name, (_, compared) in assessed.items():
        for comparison, p_values in compared:
            relations: set[Relation] = {comparison.relation, "root"} if comparison.against == roots[name] else {comparison.relation}
            headline = {HEADLINE: p_values[comparison.count]} if comparison.count in p_values else {}
            for basis, p in (p_values | headline).items():
                for relation in relations:
                    families.setdefault((relation, basis), {})[name] = p
    q = {key: dict(zip(members, adjusted(list(members.values())), strict=True)) for key, members in families.items()}

    def corrected(name: str, comparison: Comparison, basis: str, uncorrected: Verdict) -> Verdict:
        family = HEADLINE if basis == comparison.count else basis
        return uncorrected if q.get((comparison.relation, family), {}).get(name, 1.0) <= FALSE_DISCOVERY_RATE else "inconclusive"

    result = {}
    for name, (own_density, compared) in assessed.items():
        final = []
        for comparison, p_values in compared:
            update: dict[str, Any] = {
                "verdict": corrected(name, comparison, "params", comparison.verdict),
                "verdict_by_score": corrected(name, comparison, "score", comparison.verdict_by_score),
                "verdict_bits": corrected(name, comparison, "bits", comparison.verdict_bits),
                "verdict_active": corrected(name, comparison, "active", comparison.verdict_active),
                "verdict_time": {h: corrected(name, comparison, f"time/{h}", v) for h, v in comparison.verdict_time.items()},
                "p": p_values.get(comparison.count),
                "q": q.get((comparison.relation, HEADLINE), {}).get(name),
            }
            decided = comparison.model_copy(update=update)
            main = decided.headline[1]
            fragile = main != "inconclusive" and any(other.flips for other in comparison.robustness)
            needed = comparison.items_needed if main == "inconclusive" else None
            final.append(decided.model_copy(update={"fragile": fragile, "items_needed": needed}))
        result[name] = (own_density, final)
    return result


def _compare_task(study: DrawnStudy, ruler: Ruler, child: Measured, parent: Measured, task: str, params: float) -> TaskComparison:
    child_draws, parent_draws = study.draws[child.name, task], study.draws[parent.name, task]
    loss, loss_before = child_draws.losses.get("bits per byte"), parent_draws.losses.get("bits per byte")
    score, score_before = child_draws.score.values, parent_draws.score.values
    changes = None if score is None or score_before is None else mcnemar(score_before, score)
    return TaskComparison(
        task=task,
        items=child.count(task),
        bits_per_byte=None if loss is None or loss_before is None else _loss_difference(loss, loss_before),
        accuracy=_score_difference(child_draws.score, parent_draws.score),
        ratio_by_loss=_interval(study.ratios(ruler, child.name, parent.name, [task], "loss")[task], params),
        ratio_by_score=_interval(study.ratios(ruler, child.name, parent.name, [task], "score")[task], params),
        lost=None if changes is None else changes.lost,
        gained=None if changes is None else changes.gained,
        mcnemar=None if changes is None else changes.p,
    )


def _remarks(
    study: DrawnStudy, ruler: Ruler, estimator: Estimator, child: Measured, parent: Measured, shared: list[str], notes: tuple[str, ...]
) -> list[str]:
    """Remarks on a comparison, or why it has no ratio."""
    if not shared:
        return [] if notes else [f"{child.name} and {parent.name} have no benchmark in common"]
    ratios = study.ratios(ruler, child.name, parent.name, shared, estimator)
    if all(ratio is None for ratio in ratios.values()):
        return ["no task tells both of them on the ruler"]
    remarks = []
    if child.table != parent.table:
        joined = child.joined or parent.joined or "their settings may differ by more than the models do"
        remarks.append(f"from different tables ({child.table} and {parent.table}): {joined}")
    known = ruler.reference.tasks
    without = [task for task, ratio in ratios.items() if ratio is None and (task in known or task not in TASKS)]
    without += minor_bounds(ratios) if child.published else []
    if without:
        remarks.append(
            f"without {', '.join(without)}, which {'tells' if len(without) == 1 else 'tell'} no more than a bound here, or nothing"
        )
    remarks += [mismatch(task, ruler.reference.name, known) for task in ratios if task in TASKS and task not in known and child.published]
    return remarks


def _interval(estimate: LogEstimate | None, divisor: float) -> Interval | None:
    return None if estimate is None else estimate.over(divisor).interval()


def _loss_difference(child: Draws, parent: Draws) -> Interval | None:
    """Paired difference in bits per byte; `None` if the items give no interval."""
    if child.values is None or parent.values is None:
        return None
    paired = child.values - parent.values
    if len(paired) < MIN_ITEMS or (np.ptp(paired) == 0 and paired[0] != 0):
        return None
    return difference(child.mean, parent.mean, child.means - parent.means)


def _score_difference(child: Draws, parent: Draws) -> Interval:
    """Difference in accuracy, paired if there are items, with the interval [-1, 1] if there are fewer than `MIN_ITEMS`.

    If every item gives the same difference the bootstrap has no spread. Then the rule of three applies: an event that did not
    happen in n items has a rate below 3 / n, at 95%.
    """
    value = child.mean - parent.mean
    if child.values is not None and parent.values is not None:
        paired = child.values - parent.values
        if len(paired) < MIN_ITEMS:
            return Interval(value=value, low=-1.0, high=1.0)
        if np.ptp(paired) == 0:
            margin = 3 / len(paired)
            return Interval(value=value, low=max(value - margin, -1.0), high=min(value + margin, 1.0))
    return difference(child.mean, parent.mean, child.means - parent.means)
