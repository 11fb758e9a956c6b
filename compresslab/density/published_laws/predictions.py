"""What published laws predict for each variant of a study, beside what the study measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from compresslab.density.published_laws import compression, distillation, multiplier, precision, pruning, retraining, undertrained
from compresslab.density.published_laws.law import Law
from compresslab.density.published_laws.refits import refits
from compresslab.density.published_laws.settings import Setting, setting_of
from compresslab.records import Comparison, Interval, LawPrediction, PublishedLaws, VariantRecord

LAWS = (precision.LAW, undertrained.LAW, multiplier.LAW, pruning.LAW, compression.LAW, retraining.LAW, distillation.LAW)
NO_TOKENS = "the training tokens of the base are not known; base.train_tokens states them"
MIXTURE = "the law is one of dense models, and this is a mixture of experts"
SIZES = "N̂ of the variant over N̂ of its parent, read off the study's reference by {estimator}"
ANSWERS = "held-out text of the law against the right answers of the study's tasks"


class AddedLoss(NamedTuple):
    """What a step adds to the loss of the right answers, in nats a token, and the tasks for which that is not known."""

    loss: Interval
    left_out: tuple[str, ...] = ()


def published_laws(
    variants: Sequence[VariantRecord], tokens: Mapping[str, float], added_loss: Mapping[str, AddedLoss] | None = None
) -> PublishedLaws:
    """All laws for all variants that have a parent and a density; a replicate has no predictions of its own.

    Args:
        tokens: training tokens by model, for models whose record does not state them.
        added_loss: by variant what its last step adds to the loss of the right answers, in nats a token. None for published scores.
    """
    by_name = {variant.name: variant for variant in variants}
    pairs = [
        (variant, parent, setting_of(variant, parent, tokens))
        for variant in variants
        if not variant.replicate_of and variant.density and (parent := by_name.get(variant.parent)) and parent.density
    ]
    added = added_loss or {}
    predictions = [row for pair in pairs for row in _Predictions(*pair, added.get(pair[0].name)).rows()]
    return PublishedLaws(predictions=predictions, refits=refits(pairs))


class _Predictions:
    """The predictions for one variant."""

    def __init__(self, variant: VariantRecord, parent: VariantRecord, setting: Setting, added: AddedLoss | None) -> None:
        self.variant, self.parent, self.setting, self.added = variant, parent, setting, added
        found = (comparison for comparison in variant.comparisons if comparison.relation == "parent")
        self.comparison: Comparison | None = next(found, None)

    def rows(self) -> Iterator[LawPrediction]:
        """One row for each law that speaks of what the step did."""
        setting = self.setting
        if setting.change == "rounded":
            yield self._precision_size()
            if self.added is not None and not self._refusal():
                yield self._precision_loss()
            yield self._undertrained()
            yield self._multiplier(None if setting.bits is None or setting.rounds_inputs else multiplier.of_bits(setting.bits))
        elif setting.change == "zeros":
            yield self._multiplier(multiplier.of_zeros(setting.removed or 0.0))
            yield self._only_refitted(pruning.LAW)
        elif setting.change == "cut":
            yield self._only_refitted(pruning.LAW)
            yield self._only_refitted(compression.LAW)
        elif setting.change == "trained" and setting.pruned:
            yield self._row(retraining.LAW, reason=retraining.LAW.not_found)
        if setting.distills:
            reason = "the law is one of students with random weights at the start; this student starts from weights that were trained"
            yield self._row(distillation.LAW, reason=reason)

    def _precision_size(self) -> LawPrediction:
        law, density = precision.LAW, self.parent.density
        if reason := self._refusal():
            return self._row(law, reason=reason)
        params, tokens, bits = self._inputs()
        added, spread = precision.degradation(params, tokens, bits), math.exp(precision.OFFSET)
        middle, low, high = (
            precision.size_ratio(params, tokens, value, density.tokens_per_parameter if density else None)
            for value in (added, added * spread, added / spread)
        )
        outside = self._outside(law, params=params, tokens=tokens, bits=bits)
        return self._sizes(law, Interval(value=middle, low=low, high=high, extrapolated=bool(outside)), outside)

    def _precision_loss(self) -> LawPrediction:
        return self._losses(precision.LAW, precision.degradation(*self._inputs()), math.exp(precision.OFFSET))

    def _undertrained(self) -> LawPrediction:
        if reason := self._refusal():
            return self._row(undertrained.LAW, "nats a token", reason=reason)
        return self._losses(undertrained.LAW, undertrained.degradation(*self._inputs()), 1.0)

    def _inputs(self) -> tuple[float, float, int]:
        """N, D and P of rounding that nothing refuses."""
        return self.setting.params, self.setting.tokens or 0.0, self.setting.bits or 0

    def _multiplier(self, factor: float | None) -> LawPrediction:
        law, setting = multiplier.LAW, self.setting
        if setting.mixture:
            return self._row(law, reason=MIXTURE)
        if factor is None:
            rounded = f"{setting.bits} bits{' with rounded activations' if setting.rounds_inputs else ''}"
            what = rounded if setting.change == "rounded" else f"{setting.removed or 0:.0%} zeros"
            return self._row(law, reason=f"no multiplier of {what} could be found in a source")
        trained = setting.after_rounding
        outside = ["the weights were trained after rounding, not from the start" if trained else "rounded or pruned after training"]
        return self._sizes(law, Interval(value=factor, low=factor, high=factor, extrapolated=True), [*outside, *self._parent()])

    def _only_refitted(self, law: Law) -> LawPrediction:
        return self._row(law, reason=f"{law.not_found}; it is fitted again where there are enough variants")

    def _refusal(self) -> str:
        """Why the laws of rounding after training say nothing here, or ""."""
        if self.setting.after_rounding:
            return "the weights were trained after rounding, and the law is one of rounding after training"
        if self.setting.mixture:
            return MIXTURE
        if self.setting.params <= 0:
            return "the model has no parameters beside its embedding"
        return "" if self.setting.tokens else NO_TOKENS

    def _outside(self, law: Law, **values: float) -> list[str]:
        other = [] if "gptq" in self.setting.method else [f"rounded by {self.setting.method}; the constants are those of GPTQ"]
        inputs = ["activations are rounded, too"] if self.setting.rounds_inputs else []
        return [*law.outside(**values), *other, *inputs, *self._parent()]

    def _parent(self) -> list[str]:
        return [self.setting.parent_note] if self.setting.parent_note else []

    def _losses(self, law: Law, value: float, spread: float) -> LawPrediction:
        """A row that compares losses. `spread`: the factor that the law's source leaves open, in both directions."""
        params, tokens, bits = self._inputs()
        outside = self._outside(law, params=params, tokens=tokens, bits=bits)
        left_out = self.added.left_out if self.added else ()
        return self._row(
            law,
            "nats a token",
            predicted=Interval(value=value, low=value / spread, high=value * spread, extrapolated=bool(outside)),
            measured=self.added.loss if self.added else None,
            residual=self.added.loss.value - value if self.added else None,
            compared=f"{ANSWERS}, without {', '.join(left_out)}" if left_out else ANSWERS,
            outside=outside,
            reason="" if self.added else "the study has no losses a token to hold it against",
        )

    def _sizes(self, law: Law, predicted: Interval, outside: list[str]) -> LawPrediction:
        """A row that compares sizes: r by parameters, times what the step did to the number of parameters."""
        comparison, ratio = self.comparison, self.comparison.ratio if self.comparison else None
        if comparison is None or ratio is None:
            return self._row(law, predicted=predicted, outside=outside, reason="the study has no density ratio to hold it against")
        counts = self.variant.steps[-1].size.counted / self.parent.steps[-1].size.counted
        measured = ratio.model_copy(update={name: getattr(ratio, name) * counts for name in ("value", "low", "high")})
        return self._row(
            law,
            predicted=predicted,
            measured=measured,
            residual=None if measured.bound or not measured.value > 0 else math.log(measured.value / predicted.value),
            compared=SIZES.format(estimator=comparison.estimator),
            outside=outside,
        )

    def _row(self, law: Law, quantity: str = "size ratio", **values: object) -> LawPrediction:
        names = {"law": law.name, "cited": law.reference, "variant": self.variant.name, "against": self.parent.name}
        return LawPrediction.model_validate({**names, "quantity": quantity, **values})
