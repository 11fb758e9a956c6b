"""How dense a variant is, and against its parent."""

from __future__ import annotations

from html import escape
from typing import Literal

from pydantic import Field

from compresslab.records.base import Record
from compresslab.records.display import number

Verdict = Literal["raised", "lowered", "inconclusive"]
Estimator = Literal["loss", "score"]
Count = Literal["params", "active", "bits"]
"""What N counts in the headline of a comparison."""


class Interval(Record):
    """A value with its 95% interval. `bound` is "<" or ">" when the value is only a bound, else empty.

    `extrapolated` says that the value was read off the reference outside the range it was fitted on.
    """

    value: float
    low: float
    high: float
    extrapolated: bool = False
    bound: Literal["", "<", ">"] = ""

    def short_html(self) -> str:
        """How a notebook shows it in a cell."""
        ends = "" if self.bound else f" [{number(self.low)}, {number(self.high)}]"
        flag = " <abbr title='extrapolated'>†</abbr>" if self.extrapolated else ""
        return f"{escape(self.bound)}{number(self.value)}{ends}{flag}"


class TaskDensity(Record):
    """Effective parameters of a variant on one task, in parameters. A missing estimate is `None` with its `reason`."""

    task: str
    by_loss: Interval | None
    by_score: Interval | None
    reason: str = ""


class Curve(Record):
    """The reference on one task at one token budget: what size it needs for which quality.

    Attributes:
        unit: of the values: "bits per byte", "bits per word", "latent loss", or "score".
        params: sizes in parameters, rising. middle, low, high: the value at each, and the 95% band of the resampled fits.
        fitted: smallest and largest size in the fit; beyond it the curve is extrapolated.
        points: a family's own models, as (parameters, value); those of a ladder were trained on other budgets and lie on no one curve.
    """

    task: str
    unit: str
    params: list[float]
    middle: list[float]
    low: list[float]
    high: list[float]
    fitted: tuple[float, float]
    points: list[tuple[float, float]] = Field(default_factory=list)


class Density(Record):
    """Capability density of one variant.

    Attributes:
        tokens, tokens_per_parameter: D0, the training tokens given to the reference: one number for all sizes, or tokens for each
            parameter of its model. The other of the two is `None`.
        effective_by_loss, effective_by_score: N_hat over all tasks, in parameters (geometric mean over tasks).
        estimator: what `params`, `active`, `bits` and `time` rest on: "loss", or "score" where the reference or the study has no losses.
        params, active, bits: N_hat over N, over active N, over N * stored bits / 16. Their intervals hold three things: the
            items, the fit, and the scatter of the reference's own models around it.
        time: N_hat over N_time, by hardware profile. N_time is modelled, with the errors of `density.time.engine_errors` in the interval;
            on this machine it is measured where the variant was timed.
        without_overlap: `params` without the items that share 13 words with a text that the variant's steps read; `None` if there are none.
        modelled_seconds: modelled time of one request of the workload, by hardware profile. modelled_interval: the same with its interval.
        engines: by hardware profile the engine for which `time` holds.
    """

    reference: str
    tokens: float | None
    effective_by_loss: Interval | None
    effective_by_score: Interval | None
    params: Interval | None
    active: Interval | None
    bits: Interval | None
    params_by_score: Interval | None
    tokens_per_parameter: float | None = None
    estimator: Estimator = "loss"
    time: dict[str, Interval] = Field(default_factory=dict)
    modelled_seconds: dict[str, float] = Field(default_factory=dict)
    modelled_interval: dict[str, Interval] = Field(default_factory=dict)
    engines: dict[str, str] = Field(default_factory=dict)
    tasks: list[TaskDensity] = Field(default_factory=list)
    without_overlap: Interval | None = None

    def by(self, count: Count) -> Interval | None:
        """The density by one count of N."""
        by_count: dict[Count, Interval | None] = {"params": self.params, "active": self.active, "bits": self.bits}
        return by_count[count]


class TaskComparison(Record):
    """Child against parent on one task: paired differences over the same items, child minus parent.

    Attributes:
        lost, gained: items that the parent had right and the child has not, and the other way round. mcnemar: two-sided p of McNemar's
            exact test on these. `None` where items are not simply right or wrong, or not known.
    """

    task: str
    items: int
    bits_per_byte: Interval | None
    accuracy: Interval
    ratio_by_loss: Interval | None
    ratio_by_score: Interval | None
    lost: int | None = None
    gained: int | None = None
    mcnemar: float | None = None


class Alternative(Record):
    """The density ratio under one other choice that the study could have made.

    Attributes:
        choice: what is chosen otherwise: "D0", "reference", "scatter", "curve", "weights", "estimator", "task alone", "task left out",
            "overlap".
        setting: the other choice. verdict: by the interval alone, without the study's correction.
        flips: it decides the other way, or (a single task excepted) its value lies on the other side of 1 with an interval
            that does not hold the study's own.
        reason: why there is no ratio.
    """

    choice: str
    setting: str
    ratio: Interval | None
    verdict: Verdict
    flips: bool = False
    reason: str = ""


class Comparison(Record):
    """A variant against its parent, or against its root.

    Attributes:
        against: name of the other variant. relation: "parent" or "root".
        ratio: density ratio r by params, by `estimator`.
        ratio_by_score: r by params and by score. ratio_bits, ratio_time: r by stored bits, by time.
        time_ratio: time of a request over that of the other variant, by hardware profile.
        ratio_active: r by active parameters, for mixtures of experts.
        count: the count of N that answers for what the step changed: see `headline`.
        verdict: "raised" or "lowered" if the 95% interval of `ratio` lies on one side of 1 and the false-discovery rate over all
            comparisons of this relation in the study stays at 5% (Benjamini and Hochberg 1995), else "inconclusive".
        verdict_bits, verdict_active, verdict_time: the same rule on the other counts of N. The verdict by `count` is one of the family of
            all headlines of this relation, whatever they count; a verdict by another count is one of the family of that count.
        rests_on: the tasks that r rests on. prediction: of published scores, the 95% interval in which r by `count` on one more benchmark
            is expected. heterogeneity: standard deviation of ln r between benchmarks beyond their errors.
        p, q: of r by `count` being 1: from the draws, two-sided; and adjusted for the study's number of comparisons.
        items_needed: for an inconclusive verdict, how many items a task would decide it with 80% chance if r is what it seems, at the
            variance observed; infinite if the ruler's own uncertainty forbids it with any number.
        runs_apart: how many training runs lie behind one of the two and not behind the other; the intervals of r contain the scatter
            between training runs so many times.
        replicates: how many replicates (models that differ in the seeds of one step alone) the step has that sets the two apart; 0
            without replicates. ratio is then the mean over them, or that of a model made from the first of them.
        ratio_of_each: r of each replicate, the variant's own first; empty for a model made from the first of them.
        spread_of_replicates: standard deviation of ln r between them, in which the intervals contain the scatter of that step. `None`
            where they show none: they are equal, or beyond the reference.
        spread_of_reference: standard deviation of ln r of one training run by the reference's scatter; `None` if the step does not train.
        fragile: another choice of D0, reference, estimator or tasks turns the verdict round; `robustness` shows which.
        density_days: ln(r) / A, with r by `count`: days of the field's progress that the compression gained (or cost, if negative).
        reason: why there is no ratio, or what is special about it (parent and child from different tables).
    """

    against: str
    relation: Literal["parent", "root"]
    ratio: Interval | None
    ratio_by_score: Interval | None
    ratio_bits: Interval | None
    ratio_active: Interval | None = None
    ratio_time: dict[str, Interval] = Field(default_factory=dict)
    time_ratio: dict[str, Interval] = Field(default_factory=dict)
    verdict: Verdict
    verdict_by_score: Verdict
    verdict_bits: Verdict
    verdict_active: Verdict = "inconclusive"
    verdict_time: dict[str, Verdict] = Field(default_factory=dict)
    density_days: Interval | None
    tasks: list[TaskComparison] = Field(default_factory=list)
    resamples: int
    seed: int
    p: float | None = None
    q: float | None = None
    items_needed: float | None = None
    runs_apart: int = 0
    replicates: int = 0
    ratio_of_each: list[float] = Field(default_factory=list)
    spread_of_replicates: float | None = None
    spread_of_reference: float | None = None
    fragile: bool = False
    robustness: list[Alternative] = Field(default_factory=list)
    estimator: Estimator = "loss"
    reason: str = ""
    count: Count = "params"
    rests_on: list[str] = Field(default_factory=list)
    prediction: Interval | None = None
    heterogeneity: float | None = None

    @property
    def headline(self) -> tuple[Interval | None, Verdict]:
        """r and its verdict by the count of N that answers for what the step changed."""
        return self.by(self.count)

    def by(self, count: Count) -> tuple[Interval | None, Verdict]:
        """r and its verdict by one count of N."""
        by_count: dict[Count, tuple[Interval | None, Verdict]] = {
            "params": (self.ratio, self.verdict),
            "active": (self.ratio_active, self.verdict_active),
            "bits": (self.ratio_bits, self.verdict_bits),
        }
        return by_count[count]
