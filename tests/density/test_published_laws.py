"""Each published law gives the figures of its paper, or those worked by hand."""

from __future__ import annotations

import math

import pytest

from compresslab.density.published_laws import compression, distillation, multiplier, precision, pruning, retraining, undertrained
from compresslab.density.published_laws.refits import line

SMOLLM2 = 106_203_456  # parameters of SmolLM2-135M without the embedding


def test_rounding_adds_what_the_precision_law_says() -> None:
    # By hand at N = 1e8, D = 1e10, P = 4: 0.0598 * 10^(10 * 0.5068 - 8 * 0.3439) * e^(-4 / 0.5907) = 0.0598 * 207.59 * 0.0011454.
    assert precision.degradation(1e8, 1e10, 4) == pytest.approx(0.014219, rel=1e-3)
    # A bit less multiplies it by e^(1 / 0.5907) = 5.436.
    assert precision.degradation(1e8, 1e10, 3) / precision.degradation(1e8, 1e10, 4) == pytest.approx(5.436, rel=1e-3)


def test_at_three_bits_more_training_makes_the_smallest_model_of_the_precision_paper_worse() -> None:
    # Figure 2: after rounding, the loss of the 30M model rises in data, and that of the 220M model falls.
    def rounded(params: float, tokens: float) -> float:
        return precision.loss(params, tokens) + precision.degradation(params, tokens, 3)

    assert rounded(30e6, 26e9) > rounded(30e6, 13e9)
    assert rounded(220e6, 26e9) < rounded(220e6, 13e9)


@pytest.mark.parametrize("per_parameter", [None, 200.0])
def test_a_model_of_the_ratio_of_sizes_has_the_loss_after_rounding(per_parameter: float | None) -> None:
    params, tokens, added = 1e8, 1e11, 0.2

    def loss(size: float) -> float:
        return precision.loss(size, tokens if per_parameter is None else per_parameter * size)

    if per_parameter is None:
        start = params
    else:  # the size along D = 200 N that has the model's loss
        excess = precision.loss(params, tokens) - precision.E
        start = ((precision.A + precision.B / per_parameter**precision.EXPONENT) / excess) ** (1 / precision.EXPONENT)
    ratio = precision.size_ratio(params, tokens, added, per_parameter)
    assert loss(start * ratio) == pytest.approx(precision.loss(params, tokens) + added)


def test_rounding_adds_what_the_law_of_undertrained_models_says() -> None:
    # By hand at N = 1e9, D = 1e11, P = 3: 0.017 * 10^(11 * 0.5251 - 9 * 0.2261) / 3^5.4967 = 0.017 * 5511.7 / 419.2.
    assert undertrained.degradation(1e9, 1e11, 3) == pytest.approx(0.2235, rel=2e-3)


def test_the_best_teacher_of_unlimited_text_gives_the_loss_of_supervised_training() -> None:
    # Section E.6 and figure 40 of the paper, from 100M to 100B parameters; a wrong digit in a coefficient misses by more than 1%.
    for params in (1e8, 1e9, 1e10, 1e11):
        best = min(distillation.student_loss(params, 1e30, 1.25 + 0.002 * step) for step in range(1500))
        assert best == pytest.approx(distillation.supervised_loss(params, 1e30), rel=0.01)


def test_too_strong_a_teacher_makes_a_worse_student() -> None:
    losses = {teacher: distillation.student_loss(1.98e8, 512e9, teacher) for teacher in (3.0, 2.3, 1.7)}
    assert losses[2.3] < losses[3.0]
    assert losses[2.3] < losses[1.7]


def test_only_multipliers_with_a_source_are_known() -> None:
    assert multiplier.of_bits(4) == 0.923
    assert multiplier.of_zeros(0.4991) == 0.871
    assert [multiplier.of_bits(bits) for bits in (2, 3, 8)] == [None] * 3
    assert multiplier.of_zeros(0.4) is None


def test_laws_without_coefficients_have_their_formula() -> None:
    assert pruning.performance(0.6, 0.5, 1.0, 2.0) == pytest.approx(0.15)
    assert compression.loss(3.0, 0.5, 0.0, 1.0, 2.0, 1.0) == pytest.approx(3.0 * 1.5**2 * 2)
    fitted = retraining.Coefficients(alpha=0.5, beta=1.0, gamma=-1.0, delta=0.5, n_c=4.0, d_c=2.0, e=0.1)
    # 2 + 0.25 * 4^-0.5 * (4 / 2 + 2 / 10 + 0.1)
    assert retraining.loss(2.0, 4.0, 0.25, 10.0, fitted) == pytest.approx(2 + 0.125 * 2.3)
    assert all(law.not_found.endswith("could not be found in a source") for law in (pruning.LAW, compression.LAW, retraining.LAW))


def test_what_lies_outside_a_fit_is_named_with_its_range() -> None:
    assert precision.LAW.outside(params=100e6, tokens=13e9, bits=4) == []
    assert precision.LAW.outside(params=SMOLLM2, tokens=2e12, bits=2) == [
        "2T training tokens (fitted on 1.5B to 26B)",
        "2 bits (fitted on 3 to 16)",
    ]


def test_a_line_has_the_slope_and_the_errors_of_least_squares() -> None:
    # By hand: x - 1.5 = -1.5, -0.5, 0.5, 1.5 (sum of squares 5), slope 11 / 5, residuals -0.1, 0.2, -0.1 with the last 0.
    fitted = line([0.0, 1.0, 2.0, 3.0], [1.0, 3.5, 5.4, 7.7], [0.0] * 4)
    assert fitted.slope == pytest.approx(2.2)
    assert fitted.intercept == pytest.approx(1.1)
    scatter = math.sqrt(0.06 / 2)
    assert fitted.scatter == pytest.approx(scatter)
    assert fitted.slope_error == pytest.approx(scatter / math.sqrt(5))
    assert fitted.intercept_error == pytest.approx(scatter * math.sqrt(1 / 4 + 1.5**2 / 5))


def test_points_on_a_line_have_weights_and_errors_by_their_own_variances() -> None:
    # By hand: weights 1, 1/4 and 1 at x = -1, 0, 1, so the slope has the variance 1 / 2 and the intercept 1 / 2.25. Nothing strays.
    fitted = line([-1.0, 0.0, 1.0], [1.0, 3.0, 5.0], [1.0, 4.0, 1.0])
    assert fitted.slope == pytest.approx(2)
    assert (fitted.slope_error**2, fitted.intercept_error**2) == pytest.approx((1 / 2, 1 / 2.25))
    assert fitted.scatter == 0


def test_a_point_that_is_hardly_known_hardly_counts() -> None:
    x, y = [0.0, 1.0, 2.0, 3.0, 4.0], [0.1, 0.9, 2.1, 2.9, 40.0]
    assert line(x, y, [0.01] * 4 + [1e4]).slope == pytest.approx(line(x[:4], y[:4], [0.01] * 4).slope, abs=0.01)


def test_points_stray_by_as_much_as_their_errors_do_not_explain() -> None:
    # By hand: x = -1, 1 twice, residuals 0.5 and -0.5 about each mean, so 4 * 0.25 / (v + tau^2) = 2 at v + tau^2 = 0.5.
    fitted = line([-1.0, -1.0, 1.0, 1.0], [0.5, -0.5, 2.5, 1.5], [0.1] * 4)
    assert fitted.scatter**2 == pytest.approx(0.4)
    assert fitted.slope_error**2 == pytest.approx(0.5 / 4)
