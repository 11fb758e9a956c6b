"""The density ratio under other choices of analysis: the table of robustness of every verdict, by the count of N of its headline.

The choices: other D0, every other reference with the study's tasks, straight lines instead of a family's curves, equal
weights of a table's benchmarks, the other estimator, every task alone, every task left out; and, where training sets the two models
apart, an interval without the scatter between training runs; and, where the step has replicates, one with the reference's scatter.
Published benchmarks also have their prediction interval, which flips nothing.

A choice flips a verdict if it gives the opposite one, or if its value lies on the other side of 1 and its interval does not contain the
study's own value. For a single task only the opposite verdict counts, because tasks differ. A choice that is inconclusive because of a
wider interval does not flip a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from compresslab.density.capability import Ruler, best_estimator
from compresslab.density.intervals import verdict
from compresslab.density.references.budget import Budget
from compresslab.density.references.laws import NO_DATA_TERM
from compresslab.density.references.reference import Reference
from compresslab.density.sample import DrawnStudy, counts
from compresslab.records import Alternative, Comparison, Estimator, Interval, Verdict

BUDGETS = {
    Budget(per_parameter=20.0): " (Chinchilla)",
    Budget(per_parameter=200.0): "",
    Budget(per_parameter=2000.0): "",
    Budget(tokens=1e11): "",
    Budget(tokens=1e12): " (the Densing Law's preprint)",
    Budget(tokens=5e12): " (the Densing Law's journal version)",
}
"""Other choices of D0, with whose they are."""


def alternatives(
    study: DrawnStudy, ruler: Ruler, estimator: Estimator, comparison: Comparison, child: str, others: Sequence[Reference]
) -> list[Alternative]:
    """Every other choice with its ratio; empty if the comparison has no ratio."""
    ratio, _ = comparison.headline
    if ratio is None:
        return []
    parent, value = comparison.against, ratio.value
    decided = verdict(ratio)
    tasks = [entry.task for entry in comparison.tasks]
    counted = counts(study, study.variants[child], study.variants[parent])[comparison.count]

    def alternative(
        choice: str, setting: str, ruler: Ruler, tasks: Iterable[str], estimator: Estimator, missing: str, *, equal_weights: bool = False
    ) -> Alternative:
        estimate = study.effective(ruler, child, parent, tasks, estimator, equal_weights=equal_weights)
        if estimate is None:
            return Alternative(choice=choice, setting=setting, ratio=None, verdict="inconclusive", reason=missing)
        interval = estimate.over(counted).interval()
        # Tasks differ, so a single one flips only by its verdict.
        turned = flips(decided, value, interval, by_value=choice != "task alone")
        return Alternative(choice=choice, setting=setting, ratio=interval, verdict=verdict(interval), flips=turned)

    results = []
    if _has_data_term(ruler.reference, tasks):
        for budget, whose in BUDGETS.items():
            if budget != ruler.budget:
                other_budget = study.ruler(ruler.reference, budget)
                results.append(alternative("D0", f"{budget}{whose}", other_budget, tasks, estimator, "off the ruler at this D0"))
    for reference in others:
        other_ruler = study.ruler(reference, ruler.budget)
        known_tasks = [task for task in tasks if task in reference.tasks]
        missing = "it has none of the study's tasks" if not known_tasks else "no task tells both of them on this ruler"
        estimator_there = best_estimator(reference, {key: value for key, value in study.draws.items() if key[0] == child})
        results.append(alternative("reference", reference.name, other_ruler, known_tasks, estimator_there, missing))
    if comparison.spread_of_replicates is not None and comparison.spread_of_reference is not None:
        of_reference = replace(ruler, without_replicates=True)
        setting = f"the reference's, not that between the {comparison.replicates} replicates"
        results.append(alternative("scatter", setting, of_reference, tasks, estimator, "no estimate"))
    if (comparison.runs_apart or comparison.replicates) and not study.variants[child].published:
        these = replace(ruler, without_scatter=True)
        setting = "these models, no further replicates" if comparison.replicates else "these two models, not a second training run"
        results.append(alternative("scatter", setting, these, tasks, estimator, "no estimate"))
    if ruler.reference.kind == "family":
        interpolating = replace(ruler, interpolate=True)
        results.append(
            alternative(
                "curve", "straight lines between the reference's models", interpolating, tasks, "score", "outside its models' scores"
            )
        )
    if estimator == "loss":
        results.append(alternative("estimator", "score", ruler, tasks, "score", "no task gives both an estimate by score"))
    if study.variants[child].published and len(tasks) > 1:
        results.append(alternative("weights", "every benchmark alike", ruler, tasks, estimator, "bounds on both sides", equal_weights=True))
    if comparison.prediction is not None:
        expected = comparison.prediction
        results.append(
            Alternative(choice="one more benchmark", setting="where its r is expected", ratio=expected, verdict=verdict(expected))
        )
    informative = [task for task in tasks if study.effective(ruler, child, parent, [task], estimator) is not None]
    if len(informative) > 1:
        results += [alternative("task alone", task, ruler, [task], estimator, "") for task in informative]
    if len(informative) > 2:  # of two tasks, leaving out one is the other alone
        results += [
            alternative("task left out", task, ruler, [other for other in informative if other != task], estimator, "")
            for task in informative
        ]
    return results


def _has_data_term(reference: Reference, tasks: Iterable[str]) -> bool:
    return any(reference.tasks[task].loss[0, 3] > NO_DATA_TERM / 2 for task in tasks if task in reference.tasks)


def flips(decided: Verdict, value: float, other: Interval, *, by_value: bool = True) -> bool:
    """Whether the interval of another choice turns round the verdict `decided` on the ratio `value`.

    It does by the opposite verdict, or, if `by_value`, by a value on the other side of 1 whose interval does not contain `value`.
    """
    if decided == "inconclusive":
        return False
    # A bound may lie on both sides of 1.
    contradicts = by_value and not other.bound and not other.low <= value <= other.high
    return verdict(other) not in (decided, "inconclusive") or (contradicts and (other.value - 1) * (value - 1) < 0)
