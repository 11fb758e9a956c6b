"""What published laws predict for a study's variants, beside what was measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from compresslab.records.base import Record
from compresslab.records.densities import Interval

Quantity = Literal["size ratio", "nats a token"]


class LawPrediction(Record):
    """One law for the last step of one variant, against its parent.

    Attributes:
        law: its key. cited: authors, year and preprint.
        quantity: what is compared. "size ratio": N_hat of the variant over that of its parent. "nats a token": what the step adds to
            the loss.
        predicted: with the interval that the law's source leaves open, or without width. measured: by the study, with its 95% interval.
        residual: ln(measured / predicted) of a size ratio, measured minus predicted of nats; `None` without one of them, or for a bound.
        compared: what the two figures are, in words.
        outside: what of the setting lies outside the law's fit, in words; empty inside it.
        reason: why there is no prediction or no measurement, or "".
    """

    law: str
    cited: str
    variant: str
    against: str
    quantity: Quantity
    predicted: Interval | None = None
    measured: Interval | None = None
    residual: float | None = None
    compared: str = ""
    outside: list[str] = Field(default_factory=list)
    reason: str = ""


class LawCoefficient(Record):
    """A coefficient fitted to a study, with the 95% interval of Student's t on the points' degrees of freedom.

    An end is infinite where the variants do not tell it. `published`: the paper's value, where it was found.
    """

    name: str
    value: float
    low: float
    high: float
    published: float | None = None


class LawRefit(Record):
    """A law fitted again to the variants that one method made of one parent, with other widths or shares and the same other settings.

    Attributes:
        form: the part of the law that these variants decide, as a line. points: their number. scatter: standard deviation of the points
            around the line beyond their measured errors, in the logarithm of the left side.
        variants: the variants that were fitted. left_out: those whose added loss has no logarithm, since its 95% interval reaches to 0.
    """

    law: str
    cited: str
    parent: str
    method: str
    form: str
    coefficients: list[LawCoefficient]
    points: int
    scatter: float
    variants: list[str]
    left_out: list[str] = Field(default_factory=list)


class PublishedLaws(Record):
    """All predictions of published laws for a study, and the laws that were fitted again."""

    predictions: list[LawPrediction] = Field(default_factory=list)
    refits: list[LawRefit] = Field(default_factory=list)
