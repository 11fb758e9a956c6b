"""What published laws predict for a study's variants, in its record, its tables and on its page."""

from __future__ import annotations

import math
import statistics

import pytest

from compresslab.density.published_laws.predictions import NO_TOKENS, AddedLoss, published_laws
from compresslab.records import Interval, LawPrediction, PublishedLaws, StudyRecord, TaskComparison, VariantRecord
from compresslab.report.html import render
from compresslab.report.merge import merged
from compresslab.report.tables import law_refits, laws
from report.studies import base, child, step, study

MODEL = "model-of-the-recipe"
TOKENS = {MODEL: 2e12}


def root(**config: object) -> VariantRecord:
    found = base()
    return found.model_copy(update={"steps": [found.steps[0].model_copy(update={"config": {"model": MODEL, **config}})]})


def rounded(parent: VariantRecord, name: str, bits: int, bpb: float, method: str = "gptq") -> VariantRecord:
    config = {"method": method, **({} if method.startswith("bnb") else {"bits": bits})}
    return child(parent, parent, name, step("quantize", method, 134.5e6, bits + 0.5, config), bpb, 0.5)


def by_law(found: PublishedLaws, variant: str) -> dict[str, LawPrediction]:
    """The rows of a variant, those of the precision law's own quantity apart."""
    rows = [row for row in found.predictions if row.variant == variant]
    return {"precision in nats" if (row.law, row.quantity) == ("precision", "nats a token") else row.law: row for row in rows}


def test_a_rounded_model_has_a_prediction_of_its_size_and_of_its_loss() -> None:
    parent = root()
    four = rounded(parent, "gptq4", 4, 1.05)
    rows = by_law(published_laws([parent, four], TOKENS, {"gptq4": AddedLoss(Interval(value=0.3, low=0.2, high=0.4), ("gsm8k",))}), "gptq4")
    size = rows["precision"]
    assert size.predicted is not None
    # N without the embedding is 134.5M - 28.3M; the size is one trained on as many tokens, since this D0 is one number.
    assert size.predicted.value == pytest.approx(0.466, abs=0.002)
    assert size.predicted.low < size.predicted.value < size.predicted.high
    assert size.measured is not None
    assert size.measured.value == pytest.approx(math.exp(-5.5 * 0.12), rel=1e-3)
    assert size.residual == pytest.approx(math.log(size.measured.value / size.predicted.value))
    assert size.outside == ["2T training tokens (fitted on 1.5B to 26B)"]
    loss = rows["undertrained"]
    assert loss.predicted is not None
    assert loss.predicted.value == pytest.approx(0.368, abs=0.001)
    assert loss.residual == pytest.approx(0.3 - loss.predicted.value)
    assert loss.compared == "held-out text of the law against the right answers of the study's tasks, without gsm8k"
    own = rows["precision in nats"]
    assert own.predicted is not None
    assert own.predicted.value == pytest.approx(0.204, abs=0.001)
    assert own.predicted.high / own.predicted.value == pytest.approx(math.exp(1.1277))
    assert own.residual == pytest.approx(0.3 - own.predicted.value)
    assert rows["multiplier"].predicted == Interval(value=0.923, low=0.923, high=0.923, extrapolated=True)


def test_nothing_is_predicted_where_the_training_tokens_are_not_known() -> None:
    parent = root()
    rows = by_law(published_laws([parent, rounded(parent, "gptq4", 4, 1.05)], {}), "gptq4")
    assert [(rows[law].predicted, rows[law].reason) for law in ("precision", "undertrained")] == [(None, NO_TOKENS)] * 2


def test_the_record_of_the_base_can_state_the_tokens() -> None:
    parent = root(train_tokens=2e12)
    assert by_law(published_laws([parent, rounded(parent, "gptq4", 4, 1.05)], {}), "gptq4")["precision"].predicted is not None


def test_a_law_of_dense_models_says_nothing_of_a_mixture() -> None:
    parent = root()
    last = parent.steps[-1]
    parent = parent.model_copy(update={"steps": [last.model_copy(update={"shape": last.shape.model_copy(update={"experts": 8})})]})
    rows = by_law(published_laws([parent, rounded(parent, "gptq4", 4, 1.05)], TOKENS), "gptq4")
    assert len(rows) == 3
    assert all(row.predicted is None and "mixture of experts" in row.reason for row in rows.values())


def test_a_cut_keeps_its_share_of_the_size_in_what_was_measured() -> None:
    parent = root()
    half = step("prune", "wanda", 134.5e6, 16, {"sparsity": 0.5}).model_copy(update={"details": {"sparsity": 0.4998}})
    rows = by_law(published_laws([parent, child(parent, parent, "half", half, 1.0, 1.0)], TOKENS), "half")
    assert rows["multiplier"].predicted is not None
    assert rows["multiplier"].predicted.value == 0.871
    cut = child(parent, parent, "cut", step("prune", "depth", 113.3e6, 16, {"keep": 24}), 1.2, 1.0)
    rows = by_law(published_laws([parent, cut], TOKENS), "cut")
    assert {law: row.predicted for law, row in rows.items()} == {"pruning": None, "compression": None}


def test_a_distilled_model_has_reasons_and_no_figure() -> None:
    parent = root()
    cut = child(parent, parent, "cut", step("prune", "depth", 113.3e6, 16), 1.2, 1.0)
    healed = child(cut, parent, "healed", step("distill", "forward-kl", 113.3e6, 16, tokens=60_000), 1.0, 1.0)
    rows = by_law(published_laws([parent, cut, healed], TOKENS), "healed")
    assert set(rows) == {"retraining", "distillation"}
    assert all(row.predicted is None and row.reason for row in rows.values())


def known(variant: VariantRecord, error: float) -> VariantRecord:
    """A variant whose differences to its parent in bits per byte have that standard error over its four tasks."""
    half = 1.96 * error * 2

    def narrowed(task: TaskComparison) -> TaskComparison:
        value = task.bits_per_byte.value if task.bits_per_byte else 0.0
        return task.model_copy(update={"bits_per_byte": Interval(value=value, low=value - half, high=value + half)})

    comparisons = [one.model_copy(update={"tasks": [narrowed(task) for task in one.tasks]}) for one in variant.comparisons]
    return variant.model_copy(update={"comparisons": comparisons})


def widths(parent: VariantRecord, error: float = 1e-6, **config: object) -> list[VariantRecord]:
    """Four widths whose loss falls by e^(-P / 0.8), as in the precision law with γ = 0.8, but for 0.1 in the logarithm."""
    found = []
    for bits, off in ((2, 0.1), (3, -0.1), (4, -0.1), (8, 0.1)):
        one = known(rounded(parent, f"gptq{bits}{''.join(map(str, config.values()))}", bits, 0.93 + 3 * math.exp(off - bits / 0.8)), error)
        last = one.steps[-1]
        found.append(one.model_copy(update={"steps": [*one.steps[:-1], last.model_copy(update={"config": {**last.config, **config}})]}))
    return found


def study_of_widths() -> StudyRecord:
    """Four widths whose loss falls by e^(-P / 0.8), as in the precision law with γ = 0.8."""
    parent = root()
    widths = [known(rounded(parent, f"gptq{bits}", bits, 0.93 + 3 * math.exp(-bits / 0.8)), 1e-6) for bits in (2, 3, 4, 8)]
    return study([parent, *widths], laws=published_laws([parent, *widths], TOKENS))


def test_four_widths_of_one_method_refit_the_law() -> None:
    found = study_of_widths().laws
    assert found is not None
    refit = next(one for one in found.refits if one.law == "precision")
    [gamma, factor] = refit.coefficients
    assert gamma.value == pytest.approx(0.8, rel=1e-6)
    assert gamma.low < 0.8 < gamma.high
    assert gamma.published == 0.5907
    assert factor.value == pytest.approx(math.log(3), rel=1e-6)
    assert refit.points == 4


def test_the_interval_of_a_refit_is_students_and_passes_through_the_coefficients_own_form() -> None:
    """By hand: residuals of 0.1 in turn about a line in P with a slope of nearly -1 / 0.8, and t of 2 degrees at 97.5% is 4.303."""
    parent = root()
    refit = next(one for one in published_laws([parent, *widths(parent)], TOKENS).refits if one.law == "precision")
    x, y = [2.0, 3.0, 4.0, 8.0], [math.log(3) + off - bits / 0.8 for bits, off in ((2, 0.1), (3, -0.1), (4, -0.1), (8, 0.1))]
    slope, offset = statistics.linear_regression(x, y)
    squares = sum((height - offset - slope * at) ** 2 for at, height in zip(x, y, strict=True))
    half = 4.3027 * math.sqrt(squares / 2 / sum((at - 4.25) ** 2 for at in x))
    assert refit.coefficients[0].low == pytest.approx(-1 / (slope - half), rel=1e-3)
    assert refit.coefficients[0].high == pytest.approx(-1 / (slope + half), rel=1e-3)


def test_a_coefficient_of_a_slope_that_may_be_zero_has_no_upper_end() -> None:
    parent = root()
    flat = [known(rounded(parent, f"gptq{bits}", bits, 0.93 + added), 1e-6) for bits, added in ((2, 1.0), (3, 0.2), (4, 1.0), (8, 0.5))]
    gamma = next(one for one in published_laws([parent, *flat], TOKENS).refits if one.law == "precision").coefficients[0]
    assert gamma.low < gamma.value < gamma.high == math.inf


def test_variants_of_other_settings_are_no_points_of_one_line() -> None:
    parent = root()
    mixed = [*widths(parent, group_size=32)[:2], *widths(parent, group_size=128)[2:]]
    assert published_laws([parent, *mixed], TOKENS).refits == []
    whole = published_laws([parent, *widths(parent, group_size=32), *widths(parent, group_size=128)], TOKENS).refits
    assert [fit.variants for fit in whole if fit.law == "precision"] == [
        [f"gptq{bits}{size}" for bits in (2, 3, 4, 8)] for size in (32, 128)
    ]


def test_three_widths_are_too_few_and_an_added_loss_that_may_be_zero_is_left_out() -> None:
    parent = root()
    three = [known(rounded(parent, f"gptq{bits}", bits, 0.93 + math.exp(-bits)), 1e-4) for bits in (2, 3, 4)]
    for added in (-0.01, 0.01):  # what is no more than noise is left out on both sides of 0
        eight = known(rounded(parent, "gptq8", 8, 0.93 + added), 0.01)
        assert published_laws([parent, *three, eight], TOKENS).refits == []
    again = known(rounded(parent, "gptq8-again", 8, 0.93 + math.exp(-8)), 1e-5)
    refit = published_laws([parent, *three, eight, again], TOKENS).refits[0]
    assert refit.left_out == ["gptq8"]
    assert refit.variants[-1] == "gptq8-again"


def test_four_shares_of_zeros_refit_the_exponent_of_pruning() -> None:
    parent = root()
    members = []
    for share in (0.2, 0.3, 0.4, 0.5):
        last = step("prune", "wanda", 134.5e6, 16).model_copy(update={"details": {"sparsity": share}})
        mean = statistics.fmean(score.bits_per_byte or 0 for score in parent.scores)
        members.append(known(child(parent, parent, f"w{share}", last, 0.93 + mean * ((1 - share) ** -1.5 - 1), 1.0), 1e-6))
    [refit] = published_laws([parent, *members], {}).refits
    assert (refit.law, refit.method) == ("pruning", "wanda")
    assert refit.coefficients[0].value == pytest.approx(1.5)
    assert refit.coefficients[1].value == pytest.approx(0, abs=1e-9)


def test_the_page_and_the_tables_have_predictions_reasons_and_refits() -> None:
    whole = study_of_widths()
    page = render(whole)
    section = page[page.index("What published laws predicted") :]
    assert "Kumar et al. 2024 (arXiv 2411.04330)" in section
    assert "γ_post = 0.800 [0." in section
    assert "held-out text of the law against the right answers of the study&#39;s tasks" in section
    assert "an open factor of the law, not a 95% interval" in section
    assert "no multiplier of 8 bits could be found in a source" in section
    assert "Coefficients from Table 2 in appendix K" in section
    frame = laws(whole).set_index(["variant", "law"])
    assert frame.loc[("gptq4", "multiplier"), "predicted"] == 0.923
    assert law_refits(whole).set_index(["law", "coefficient"]).loc[("precision", "γ_post"), "value"] == pytest.approx(0.8)


def test_a_page_of_several_studies_has_the_laws_of_each_under_the_names_of_its_variants() -> None:
    left, right = study_of_widths(), study_of_widths()
    assert left.laws is not None
    left, right = (one.model_copy(update={"study": name}) for one, name in ((left, "left"), (right, "right")))
    unread = left.model_copy(update={"study": "unread", "laws": None})
    joint = merged([left, unread, right])
    assert joint.laws is not None
    names = {variant.name for variant in joint.variants}
    named = [name for row in joint.laws.predictions for name in (row.variant, row.against)]
    named += [name for fit in joint.laws.refits for name in (fit.parent, *fit.variants, *fit.left_out)]
    assert set(named) <= names
    assert len(joint.laws.predictions) == 2 * len(left.laws.predictions)
    assert len(joint.laws.refits) == 2 * len(left.laws.refits)
    page = render(joint)
    section = page[page.index("What published laws predicted") :]
    assert "left/gptq4" in section
    assert "<bdi>right/base</bdi>" in section
    assert merged([unread, unread.model_copy(update={"study": "neither"})]).laws is None


def test_a_study_that_nobody_looked_at_has_no_section() -> None:
    assert "What published laws predicted" not in render(study([base()]))
