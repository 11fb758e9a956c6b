"""What a density ratio would be under the other choices that the study could have made: the table that every verdict carries.

D0 from 100B to 15T tokens, every other reference that knows the study's tasks, straight lines in place of a family's curves, equal weights
of a table's benchmarks, the other estimator, every task alone, every task left out; and, for measured models, what is left if a
difference must exceed the scatter of the reference's own runs.

A choice flips a verdict if it decides the other way; or if its value lies on the other side of 1 and its interval does not hold the
study's own value (a single task must decide: tasks do differ). A noisier choice that merely does not decide speaks against nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from compresslab.density.capability import Ruler, best_estimator
from compresslab.density.intervals import verdict
from compresslab.density.references.laws import NOTHING
from compresslab.density.references.reference import Reference
from compresslab.density.sample import Study
from compresslab.records import Alternative, Comparison, Estimator

BUDGETS = (1e11, 3e11, 1e12, 5e12, 15e12)
"""D0 in tokens: the Densing paper's arXiv version takes 1T, its journal version 5T."""


def alternatives(
    study: Study, ruler: Ruler, estimator: Estimator, comparison: Comparison, child: str, others: Sequence[Reference]
) -> list[Alternative]:
    """Every other choice with the ratio that it gives; empty where the comparison has no ratio."""
    if comparison.ratio is None:
        return []
    parent, value = comparison.against, comparison.ratio.value
    said = verdict(comparison.ratio)
    tasks = [entry.task for entry in comparison.tasks]
    params = study.variants[child].size.counted / study.variants[parent].size.counted

    def row(
        choice: str, setting: str, ruler: Ruler, tasks: Iterable[str], estimator: Estimator, missing: str, *, alike: bool = False
    ) -> Alternative:
        estimate = study.effective(ruler, child, parent, tasks, estimator, alike=alike)
        if estimate is None:
            return Alternative(choice=choice, setting=setting, ratio=None, verdict="inconclusive", reason=missing)
        interval = estimate.over(params).interval()
        decided = verdict(interval)
        opposite = said != "inconclusive" and decided not in (said, "inconclusive")
        # Tasks do differ, so a single one must decide; and a bound lies on both sides of 1.
        contradicts = choice != "task alone" and not interval.bound and not interval.low <= value <= interval.high
        other_side = said != "inconclusive" and contradicts and (interval.value - 1) * (value - 1) < 0
        return Alternative(choice=choice, setting=setting, ratio=interval, verdict=decided, flips=opposite or other_side)

    found = []
    if _has_data_term(ruler.reference, tasks):
        for tokens in BUDGETS:
            if tokens != ruler.tokens:
                found.append(row("D0", shown(tokens), study.ruler(ruler.reference, tokens), tasks, estimator, "off the ruler at this D0"))
    for reference in others:
        other = study.ruler(reference, ruler.tokens)
        known = [task for task in tasks if task in reference.tasks]
        missing = "it has none of the study's tasks" if not known else "no task tells both of them on this ruler"
        by = best_estimator(reference, {key: value for key, value in study.bench.items() if key[0] == child})
        found.append(row("reference", reference.name, other, known, by, missing))
    if not study.variants[child].published:
        strays = replace(ruler, strays=True)
        setting = "each model strays from the curve as the reference's own do"
        found.append(row("scatter", setting, strays, tasks, estimator, "no estimate"))
    if ruler.reference.kind == "family":
        between = replace(ruler, straight=True)
        found.append(row("curve", "straight lines between the reference's models", between, tasks, "score", "outside its models' scores"))
    if estimator == "loss":
        found.append(row("estimator", "score", ruler, tasks, "score", "no task gives both an estimate by score"))
    if study.variants[child].published and len(tasks) > 1:
        found.append(row("weights", "every benchmark alike", ruler, tasks, estimator, "bounds on both sides", alike=True))
    counted = [task for task in tasks if study.effective(ruler, child, parent, [task], estimator) is not None]
    if len(counted) > 1:
        found += [row("task alone", task, ruler, [task], estimator, "") for task in counted]
    if len(counted) > 2:  # of two tasks, leaving out one is the other alone
        found += [row("task left out", task, ruler, [other for other in counted if other != task], estimator, "") for task in counted]
    return found


def shown(tokens: float) -> str:
    """A token budget in words: 300B, 15T."""
    return f"{tokens / 1e12:g}T" if tokens >= 1e12 else f"{tokens / 1e9:g}B"


def _has_data_term(reference: Reference, tasks: Iterable[str]) -> bool:
    return any(reference.tasks[task].loss[0, 3] > NOTHING / 2 for task in tasks if task in reference.tasks)
