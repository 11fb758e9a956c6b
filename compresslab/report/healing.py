"""Healing: density against retraining tokens, and the number of tokens at which it reaches the base's."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np

from compresslab.records import Interval, StepRecord, StudyRecord, VariantRecord
from compresslab.report import words
from compresslab.report.facts import comparison_with

DRAWS = 4000
SEED = 0
# A line through a few budgets is not extrapolated beyond this many tokens.
MAX_TOKENS = 1e14


@dataclass(frozen=True)
class HealingPoint:
    """r to the base of a variant after `tokens` tokens of retraining."""

    name: str
    tokens: float
    ratio: Interval


@dataclass(frozen=True)
class Healing:
    """One way of retraining one model, at one budget or several.

    Attributes:
        start: the model before retraining. before: its r to the base. method: kind and method of the step. points: by rising tokens.
        line: intercept and slope of ln r against ln tokens; `None` with fewer than two budgets.
        needed: tokens at which r reaches 1 on that line, with a 95% interval from those of the points. The points have items and reference
            in common to an unknown degree, so the interval covers both independent errors and one common error. `None` without a line,
            infinite if the line does not rise.
    """

    start: str
    before: Interval
    method: str
    points: tuple[HealingPoint, ...]
    line: tuple[float, float] | None
    needed: Interval | None

    @property
    def summary(self) -> str:
        """One sentence on the tokens needed."""
        reaching = [point for point in self.points if point.ratio.high >= 1 and point.ratio.bound != "<"]
        if certain := next((point for point in reaching if point.ratio.low >= 1), None):
            return f"The base's density is reached within {words.count(certain.tokens)} tokens: {words.ratio(certain.ratio)}."
        if reaching:
            first = reaching[0]
            return f"The base's density may be reached within {words.count(first.tokens)} tokens: {words.ratio(first.ratio)} holds 1."
        if self.needed is None:
            return "One budget draws no line; train at two or more to see how many tokens would bring the base's density back."
        if not self.needed.value < MAX_TOKENS:
            return "On the line through these budgets the base's density is not reached."
        top = "∞" if not self.needed.high < MAX_TOKENS else words.count(self.needed.high)
        ends = f"[{words.count(self.needed.low)}, {top}]"
        return f"Extrapolated: the base's density would be reached at ≈ {words.count(self.needed.value)} tokens {ends}."


def healings(study: StudyRecord) -> list[Healing]:
    """Every compressed model that was trained afterwards, with its token budgets."""
    by_name = {variant.name: variant for variant in study.variants}
    groups: dict[tuple[str, str], list[tuple[StepRecord, VariantRecord]]] = {}
    for variant in study.variants:
        parent = by_name.get(variant.parent)
        if parent is None or not parent.parent or len(variant.steps) <= len(parent.steps):
            continue
        last = variant.steps[-1]
        if last.tokens_seen > 0:
            groups.setdefault((parent.name, _settings_without_tokens(last)), []).append((last, variant))
    found = []
    for (start, _), trained in groups.items():
        before = _to_root(by_name[start])
        points = [
            HealingPoint(variant.name, float(step.tokens_seen), ratio)
            for step, variant in trained
            if (ratio := _to_root(variant)) is not None
        ]
        if before is not None and points:
            found.append(_healing(start, before, _method(trained[0][0]), sorted(points, key=lambda point: point.tokens)))
    return found


def _healing(start: str, before: Interval, method: str, points: list[HealingPoint]) -> Healing:
    usable = [point for point in points if point.ratio.low > 0 and math.isfinite(point.ratio.high) and not point.ratio.bound]
    if len({point.tokens for point in usable}) < 2:
        return Healing(start, before, method, tuple(points), None, None)
    x = np.log([point.tokens for point in usable])
    y = np.log([point.ratio.value for point in usable])
    error = np.array([math.log(point.ratio.high / point.ratio.low) / (2 * 1.96) for point in usable])
    weight = 1 / np.maximum(error, 1e-6)
    design = np.stack([np.ones_like(x), x], axis=1) * weight[:, None]
    solve = np.linalg.pinv(design)
    (intercept, slope) = (float(value) for value in solve @ (y * weight))
    random = np.random.default_rng(SEED)
    ends = []
    for columns in (len(y), 1):  # independent errors of the points, then one common error
        drawn = (y + random.normal(size=(DRAWS, columns)) * error) * weight @ solve.T
        crossings = np.where(drawn[:, 1] > 0, -drawn[:, 0] / np.where(drawn[:, 1] > 0, drawn[:, 1], 1), np.inf)
        ends.append(np.quantile(crossings, [0.025, 0.975], method="nearest"))
    low, high = _exp(float(min(end[0] for end in ends))), _exp(float(max(end[1] for end in ends)))
    needed = Interval(value=_exp(-intercept / slope) if slope > 0 else math.inf, low=low, high=high, extrapolated=True)
    return Healing(start, before, method, tuple(points), (intercept, slope), needed)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _to_root(variant: VariantRecord) -> Interval | None:
    found = comparison_with(variant, "root")
    return found.ratio if found else None


def _settings_without_tokens(step: StepRecord) -> str:
    config = {key: value for key, value in step.config.items() if key != "tokens"}
    return json.dumps([step.kind, step.method, config], sort_keys=True, default=str)


def _method(step: StepRecord) -> str:
    return f"{step.kind} {step.method}"
