"""Laws fitted again to a study's own variants, by least squares in logarithms, where a method has enough settings of one parent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from compresslab.density.published_laws import compression, precision, pruning, undertrained
from compresslab.density.published_laws.law import Law
from compresslab.density.published_laws.settings import Change, Setting
from compresslab.records import LawCoefficient, LawRefit, VariantRecord

LEAST_SETTINGS = 4
"""Different bit widths or shares: two coefficients and two degrees of freedom, so that the standard errors mean something."""

Pair = tuple[VariantRecord, VariantRecord, Setting]


class Line(NamedTuple):
    """y = intercept + slope x by least squares, with the standard errors, and the standard deviation of the residuals."""

    slope: float
    intercept: float
    slope_error: float
    intercept_error: float
    scatter: float


class _Form(NamedTuple):
    """One law as a line in the settings of one method on one parent.

    Attributes:
        changes: the changes that it speaks of. x: the abscissa of a setting. y: the ordinate of bits per byte before and after, `None`
            where it has no logarithm. slope: name of the slope's coefficient, and its value by the slope and its error.
    """

    law: Law
    changes: tuple[Change, ...]
    form: str
    x: Callable[[Setting], float]
    y: Callable[[float, float], float | None]
    slope: str
    of_slope: Callable[[float, float], tuple[float, float]]
    published: float | None
    factor: str


def _added(before: float, after: float) -> float | None:
    return math.log(after - before) if after > before else None


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
        _added,
        "γ_post",
        lambda slope, error: (-1 / slope, error / slope**2),
        precision.GAMMA_POST,
        "ln K",
    ),
    _Form(
        undertrained.LAW,
        ("rounded",),
        "ln ΔL = ln K - γ ln P",
        lambda setting: math.log(_bits(setting)),
        _added,
        "γ",
        lambda slope, error: (-slope, error),
        undertrained.GAMMA,
        "ln K",
    ),
    _Form(
        pruning.LAW,
        ("zeros", "cut"),
        "ln(L0 / L) = ln P0 + α ln(1 - r), L the loss",
        lambda setting: math.log(1 - _removed(setting)),
        lambda before, after: math.log(before / after),
        "α",
        lambda slope, error: (slope, error),
        pruning.EXPONENTS["language modelling"],
        "ln P0",
    ),
    _Form(
        compression.LAW,
        ("cut",),
        "ln L = c + β ln(1 + r), c of one parent without recovery",
        lambda setting: math.log(1 + _removed(setting)),
        lambda _, after: math.log(after),
        "β",
        lambda slope, error: (slope, error),
        None,
        "c",
    ),
)


def line(x: Sequence[float], y: Sequence[float]) -> Line:
    """The line of least squares through three or more points, of which two have different `x`."""
    count, middle, height = len(x), sum(x) / len(x), sum(y) / len(y)
    spread = sum((one - middle) ** 2 for one in x)
    slope = sum((one - middle) * (value - height) for one, value in zip(x, y, strict=True)) / spread
    intercept = height - slope * middle
    scatter = math.sqrt(sum((value - intercept - slope * one) ** 2 for one, value in zip(x, y, strict=True)) / (count - 2))
    return Line(slope, intercept, scatter / math.sqrt(spread), scatter * math.sqrt(1 / count + middle**2 / spread), scatter)


def refits(pairs: Sequence[Pair]) -> list[LawRefit]:
    """Every law for every parent and method with enough different settings."""
    return [found for form in FORMS for members in _groups(pairs, form) if (found := _refit(form, members)) is not None]


def _groups(pairs: Sequence[Pair], form: _Form) -> Iterator[list[Pair]]:
    groups: dict[tuple[str, str], list[Pair]] = {}
    for variant, parent, setting in pairs:
        if setting.change in form.changes and not setting.after_rounding:
            groups.setdefault((parent.name, setting.method), []).append((variant, parent, setting))
    yield from groups.values()


def _refit(form: _Form, members: Sequence[Pair]) -> LawRefit | None:
    points: list[tuple[float, float, str]] = []
    left_out: list[str] = []
    for variant, parent, setting in members:
        losses = _losses(variant, parent)
        if losses is None:
            continue
        value = form.y(*losses)
        if value is None:
            left_out.append(variant.name)
        else:
            points.append((form.x(setting), value, variant.name))
    if len({x for x, _, _ in points}) < LEAST_SETTINGS:
        return None
    fitted = line([x for x, _, _ in points], [y for _, y, _ in points])
    if fitted.slope == 0:
        return None
    value, error = form.of_slope(fitted.slope, fitted.slope_error)
    return LawRefit(
        law=form.law.name,
        cited=form.law.reference,
        parent=members[0][1].name,
        method=members[0][2].method,
        form=form.form,
        coefficients=[
            LawCoefficient(name=form.slope, value=value, error=error, published=form.published),
            LawCoefficient(name=form.factor, value=fitted.intercept, error=fitted.intercept_error),
        ],
        points=len(points),
        scatter=fitted.scatter,
        variants=[name for _, _, name in points],
        left_out=left_out,
    )


def _losses(variant: VariantRecord, parent: VariantRecord) -> tuple[float, float] | None:
    """Mean bits per byte of parent and variant over the tasks that both have; `None` without any."""
    before = {score.task: score.bits_per_byte for score in parent.scores}
    pairs = [(before[score.task], score.bits_per_byte) for score in variant.scores if score.task in before]
    known = [(first, second) for first, second in pairs if first is not None and second is not None]
    return (sum(first for first, _ in known) / len(known), sum(second for _, second in known) / len(known)) if known else None
