"""The density ratio under other choices of analysis: the table of robustness of every verdict.

The choices: D0 from 100B to 15T tokens, every other reference with the study's tasks, straight lines instead of a family's curves, equal
weights of a table's benchmarks, the other estimator, every task alone, every task left out; and, for measured models, an interval that
contains the scatter of the reference's own runs.

A choice flips a verdict if it gives the opposite one, or if its value lies on the other side of 1 and its interval does not contain the
study's own value. For a single task only the opposite verdict counts, because tasks differ. A choice that is inconclusive because of a
wider interval does not flip a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from compresslab.density.capability import Ruler, best_estimator
from compresslab.density.intervals import verdict
from compresslab.density.references.laws import NO_DATA_TERM
from compresslab.density.references.reference import Reference
from compresslab.density.sample import DrawnStudy
from compresslab.records import Alternative, Comparison, Estimator, Interval, Verdict

TOKEN_BUDGETS = (1e11, 3e11, 1e12, 5e12, 15e12)
"""D0 in tokens: the Densing paper's arXiv version takes 1T, its journal version 5T."""


def alternatives(
    study: DrawnStudy, ruler: Ruler, estimator: Estimator, comparison: Comparison, child: str, others: Sequence[Reference]
) -> list[Alternative]:
    """Every other choice with its ratio; empty if the comparison has no ratio."""
    if comparison.ratio is None:
        return []
    parent, value = comparison.against, comparison.ratio.value
    decided = verdict(comparison.ratio)
    tasks = [entry.task for entry in comparison.tasks]
    params = study.variants[child].size.counted / study.variants[parent].size.counted

    def alternative(
        choice: str, setting: str, ruler: Ruler, tasks: Iterable[str], estimator: Estimator, missing: str, *, equal_weights: bool = False
    ) -> Alternative:
        estimate = study.effective(ruler, child, parent, tasks, estimator, equal_weights=equal_weights)
        if estimate is None:
            return Alternative(choice=choice, setting=setting, ratio=None, verdict="inconclusive", reason=missing)
        interval = estimate.over(params).interval()
        # Tasks differ, so a single one flips only by its verdict.
        turned = flips(decided, value, interval, by_value=choice != "task alone")
        return Alternative(choice=choice, setting=setting, ratio=interval, verdict=verdict(interval), flips=turned)

    results = []
    if _has_data_term(ruler.reference, tasks):
        for tokens in TOKEN_BUDGETS:
            if tokens != ruler.tokens:
                results.append(
                    alternative(
                        "D0", format_tokens(tokens), study.ruler(ruler.reference, tokens), tasks, estimator, "off the ruler at this D0"
                    )
                )
    for reference in others:
        other_ruler = study.ruler(reference, ruler.tokens)
        known_tasks = [task for task in tasks if task in reference.tasks]
        missing = "it has none of the study's tasks" if not known_tasks else "no task tells both of them on this ruler"
        estimator_there = best_estimator(reference, {key: value for key, value in study.draws.items() if key[0] == child})
        results.append(alternative("reference", reference.name, other_ruler, known_tasks, estimator_there, missing))
    if not study.variants[child].published:
        with_scatter = replace(ruler, with_scatter=True)
        setting = "each model strays from the curve as the reference's own do"
        results.append(alternative("scatter", setting, with_scatter, tasks, estimator, "no estimate"))
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
    informative = [task for task in tasks if study.effective(ruler, child, parent, [task], estimator) is not None]
    if len(informative) > 1:
        results += [alternative("task alone", task, ruler, [task], estimator, "") for task in informative]
    if len(informative) > 2:  # of two tasks, leaving out one is the other alone
        results += [
            alternative("task left out", task, ruler, [other for other in informative if other != task], estimator, "")
            for task in informative
        ]
    return results


def format_tokens(tokens: float) -> str:
    """A token budget as text: 300B, 15T."""
    return f"{tokens / 1e12:g}T" if tokens >= 1e12 else f"{tokens / 1e9:g}B"


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
