"""Laws fitted again to a study's own variants, where a method has enough settings of one parent.

A law is a line in logarithms. Its points have the variance of the measured difference to the parent, and laws of this form are
approximations: points stray from the line by more than that. So each point has the weight 1 / (its variance + tau^2), with tau^2 by Paule
and Mandel 1982 (here for a line: the weighted squares of the residuals sum to the degrees of freedom). Intervals are Student's with these
degrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from compresslab.density import student
from compresslab.density.published_laws import compression, precision, pruning, undertrained
from compresslab.density.published_laws.law import Law
from compresslab.density.published_laws.settings import Change, Setting
from compresslab.density.references.laws import Array
from compresslab.records import LawCoefficient, LawRefit, VariantRecord

LEAST_SETTINGS = 4
"""Different bit widths or shares: two coefficients and two degrees of freedom, so that the standard errors mean something."""

AMOUNTS = ("bits", "sparsity", "keep", "parameters", "groups", "hidden")
"""Settings of a step that say how much it removes or how far it rounds. Variants of one line may differ in their values alone."""

NORMAL = 1.96
"""Half the width of a 95% interval, in standard errors."""

LEAST_VARIANCE = 1e-12
MOST_STEPS = 200

Pair = tuple[VariantRecord, VariantRecord, Setting]


class Line(NamedTuple):
    """y = intercept + slope x with the standard errors. `scatter`: standard deviation of the points around it beyond their own errors."""

    slope: float
    intercept: float
    slope_error: float
    intercept_error: float
    scatter: float


class _Difference(NamedTuple):
    """Mean bits per byte of the parent, what the step added to it, and the standard error of that."""

    before: float
    added: float
    error: float

    @property
    def after(self) -> float:
        return self.before + self.added


class _Form(NamedTuple):
    """One law as a line in the settings of one method on one parent.

    Attributes:
        changes: the changes that it speaks of. x: the abscissa of a setting. y: the ordinate of a difference. by_difference: its standard
            error over that of the difference. logarithm: y is the logarithm of the difference, which one that may be 0 does not have.
        slope: name of the slope's coefficient. of_slope: its value by the slope, which rises or falls throughout but for a pole at 0.
    """

    law: Law
    changes: tuple[Change, ...]
    form: str
    x: Callable[[Setting], float]
    y: Callable[[_Difference], float]
    by_difference: Callable[[_Difference], float]
    logarithm: bool
    slope: str
    of_slope: Callable[[float], float]
    published: float | None
    factor: str


def _bits(setting: Setting) -> float:
    return float(setting.bits or 16)


def _removed(setting: Setting) -> float:
    return setting.removed or 0.0


FORMS = (
    _Form(
        precision.LAW,
        ("rounded",),
        "ln ΔL = ln K - P / γ_post",
        _bits,
        lambda step: math.log(step.added),
        lambda step: 1 / step.added,
        True,
        "γ_post",
        lambda slope: -1 / slope if slope else -math.inf,
        precision.GAMMA_POST,
        "ln K",
    ),
    _Form(
        undertrained.LAW,
        ("rounded",),
        "ln ΔL = ln K - γ ln P",
        lambda setting: math.log(_bits(setting)),
        lambda step: math.log(step.added),
        lambda step: 1 / step.added,
        True,
        "γ",
        lambda slope: -slope,
        undertrained.GAMMA,
        "ln K",
    ),
    _Form(
        pruning.LAW,
        ("zeros", "cut"),
        "ln(L0 / L) = ln P0 + α ln(1 - r), L the loss",
        lambda setting: math.log(1 - _removed(setting)),
        lambda step: math.log(step.before / step.after),
        lambda step: 1 / step.after,
        False,
        "α",
        lambda slope: slope,
        pruning.EXPONENTS["language modelling"],
        "ln P0",
    ),
    _Form(
        compression.LAW,
        ("cut",),
        "ln L = c + β ln(1 + r), c of one parent without recovery",
        lambda setting: math.log(1 + _removed(setting)),
        lambda step: math.log(step.after),
        lambda step: 1 / step.after,
        False,
        "β",
        lambda slope: slope,
        None,
        "c",
    ),
)


def line(x: Sequence[float], y: Sequence[float], variances: Sequence[float]) -> Line:
    """The weighted line through three or more points with known variances, of which two have different `x`."""
    design = np.stack([np.ones(len(x)), np.asarray(x, dtype=np.float64)], axis=1)
    heights, known = np.asarray(y, dtype=np.float64), np.maximum(np.asarray(variances, dtype=np.float64), LEAST_VARIANCE)
    tau2 = 0.0
    for _ in range(MOST_STEPS):
        weights, inverse, found = _weighted(design, heights, known + tau2)
        squares = weights * (heights - design @ found) ** 2
        # The sum of squares is convex in tau^2 with the derivative -(weights @ squares), so Newton's steps from 0 never go too far.
        step = (float(squares.sum()) - (len(x) - 2)) / float(weights @ squares) if squares.any() else 0.0
        if step <= 1e-9 * (tau2 + float(known.min())):
            break
        tau2 += step
    errors = np.sqrt(inverse.diagonal())
    return Line(float(found[1]), float(found[0]), float(errors[1]), float(errors[0]), math.sqrt(tau2))


def _weighted(design: Array, heights: Array, variances: Array) -> tuple[Array, Array, Array]:
    """Weights, the covariance of the coefficients, and the coefficients."""
    weights = 1 / variances
    inverse: Array = np.linalg.inv(design.T @ (weights[:, None] * design)).astype(np.float64)
    return weights, inverse, inverse @ (design.T @ (weights * heights))


def refits(pairs: Sequence[Pair]) -> list[LawRefit]:
    """Every law for every parent, method and other settings with enough different widths or shares."""
    return [found for form in FORMS for members in _groups(pairs, form) if (found := _refit(form, members)) is not None]


def _groups(pairs: Sequence[Pair], form: _Form) -> Iterator[list[Pair]]:
    groups: dict[tuple[str, ...], list[Pair]] = {}
    for variant, parent, setting in pairs:
        if setting.change in form.changes and not setting.after_rounding:
            config = variant.steps[-1].config
            # Of an amount the name counts, if it is set: 24 layers kept and 90% of the parameters kept are two scales.
            others = sorted(f"{name}={'' if name in AMOUNTS else value}" for name, value in config.items() if value is not None)
            groups.setdefault((parent.name, setting.method, *others), []).append((variant, parent, setting))
    yield from groups.values()


def _refit(form: _Form, members: Sequence[Pair]) -> LawRefit | None:
    points: list[tuple[float, float, float, str]] = []
    left_out: list[str] = []
    for variant, parent, setting in members:
        step = _difference(variant, parent)
        if step is None:
            continue
        if form.logarithm and step.added <= NORMAL * step.error:
            left_out.append(variant.name)
        else:
            points.append((form.x(setting), form.y(step), (step.error * form.by_difference(step)) ** 2, variant.name))
    if len({x for x, _, _, _ in points}) < LEAST_SETTINGS:
        return None
    fitted = line([x for x, _, _, _ in points], [y for _, y, _, _ in points], [variance for _, _, variance, _ in points])
    if fitted.slope == 0:
        return None
    degrees = len(points) - 2
    low, high = _ends(fitted.slope, fitted.slope_error, degrees)
    value, ends = form.of_slope(fitted.slope), sorted((form.of_slope(low), form.of_slope(high)))
    if not ends[0] <= value <= ends[1]:  # the interval of the slope holds 0, the pole, so the coefficient is known on one side only
        ends = [ends[1], math.inf] if value > 0 else [-math.inf, ends[0]]
    intercept_low, intercept_high = _ends(fitted.intercept, fitted.intercept_error, degrees)
    return LawRefit(
        law=form.law.name,
        cited=form.law.reference,
        parent=members[0][1].name,
        method=members[0][2].method,
        form=form.form,
        coefficients=[
            LawCoefficient(name=form.slope, value=value, low=ends[0], high=ends[1], published=form.published),
            LawCoefficient(name=form.factor, value=fitted.intercept, low=intercept_low, high=intercept_high),
        ],
        points=len(points),
        scatter=fitted.scatter,
        variants=[name for _, _, _, name in points],
        left_out=left_out,
    )


def _ends(value: float, error: float, degrees: int) -> tuple[float, float]:
    """The 95% interval of Student's t."""
    half = error * float(student.quantiles(np.array(0.975), degrees))
    return value - half, value + half


def _difference(variant: VariantRecord, parent: VariantRecord) -> _Difference | None:
    """The difference of mean bits per byte over the tasks with an interval of it, taken as independent; `None` without any."""
    comparison = next((one for one in variant.comparisons if one.relation == "parent"), None)
    losses = {score.task: score.bits_per_byte for score in parent.scores}
    known = [
        (before, task.bits_per_byte)
        for task in (comparison.tasks if comparison else [])
        if task.bits_per_byte is not None and (before := losses.get(task.task)) is not None
    ]
    if not known:
        return None
    errors = [(interval.high - interval.low) / (2 * NORMAL) for _, interval in known]
    return _Difference(
        before=sum(before for before, _ in known) / len(known),
        added=sum(interval.value for _, interval in known) / len(known),
        error=math.hypot(*errors) / len(known),
    )
