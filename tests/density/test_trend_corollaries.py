"""What follows from a rate of growth: density and chips, when a model was passed on, prices."""

import datetime
import math

import numpy as np
import pytest

from compresslab.density.intervals import LogEstimate
from compresslab.density.trend.corollaries import PassedOn, corollaries, effective_doubling, halving_days, median_days, passed_on
from compresslab.density.trend.models import DatedModel, Reading
from compresslab.density.trend.trend import trend
from compresslab.errors import BadInput
from compresslab.records import Interval


def model(name, day, params, mmlu):
    estimate = LogEstimate(0.0, np.zeros(2), np.zeros(2))
    released = datetime.date(2024, 1, 1) + datetime.timedelta(days=day)
    return DatedModel(name, name, released, params, "t", Reading(estimate, estimate.lower), {}, (-math.inf, math.inf), mmlu)


def test_density_and_chips_double_effective_parameters_in_88_days():
    """The paper's own result from its A = 0.007 and 2.1 years."""
    assert effective_doubling(Interval(value=0.007, low=0.007, high=0.007)).value == pytest.approx(88, abs=0.5)


def test_without_growth_of_density_chips_alone_double_in_2_1_years():
    days = effective_doubling(Interval(value=0.0, low=-0.01, high=0.007))
    assert days.value == pytest.approx(2.1 * 365.25)
    assert (days.low, days.high) == (pytest.approx(88, abs=0.5), math.inf)


def test_the_price_of_an_effective_parameter_halves_in_76_days():
    """20 dollars in December 2022, 0.075 in August 2024: 8 halvings in 609 days."""
    assert halving_days(20, 0.075, 609) == pytest.approx(609 / math.log2(20 / 0.075)) == pytest.approx(76, abs=1)


def test_a_model_is_passed_on_by_the_first_later_smaller_one_with_its_score():
    models = [
        model("large", 0, 70e9, 0.60),
        model("sameday", 0, 7e9, 0.70),
        model("weaker", 10, 7e9, 0.59),
        model("larger", 20, 80e9, 0.80),
        model("first", 30, 8e9, 0.60),
        model("second", 40, 1e9, 0.90),
    ]
    passed = {entry.model: entry for entry in passed_on(models)}
    assert (passed["large"].by, passed["large"].days, passed["large"].by_params) == ("first", 30, 8e9)
    assert passed["sameday"].by == "second"
    assert passed["second"].by == ""
    assert passed["second"].days is None


def test_a_share_asks_for_a_model_that_much_smaller():
    models = [model("large", 0, 70e9, 0.60), model("alike", 10, 69e9, 0.60), model("half", 20, 35e9, 0.60)]
    assert passed_on(models)[0].by == "alike"
    assert passed_on(models, share=0.5)[0].by == "half"


def test_models_not_yet_passed_on_count_in_the_median():
    """Of four models two were passed on after 10 and 20 days; leaving the others out would give 10 to 20."""
    start = datetime.date(2024, 1, 1)

    def entry(name, days):
        return PassedOn(model=name, released=start, params=1.0, mmlu=0.5, by="x" if days else "", days=days)

    newest = PassedOn(model="newest", released=start + datetime.timedelta(days=100), params=1.0, mmlu=0.5)
    found = median_days([entry("a", 10), entry("b", 20), entry("c", None), entry("d", None), newest])
    assert found.value == 20
    assert median_days([entry("a", 10), *(entry(name, None) for name in "bcd"), newest]).value == math.inf


def test_no_model_that_was_passed_on_is_refused():
    with pytest.raises(BadInput, match="no dated model was reached"):
        median_days(passed_on([model("one", 0, 1e9, 0.5)]))


def test_the_corollaries_of_the_shipped_data_have_sources():
    found = corollaries(trend(resamples=100))
    assert [doubling.rate for doubling in found.doublings] == ["Densing Law paper", "quantile regression", "censored likelihood"]
    assert "2412.04315" in found.doublings_source
    assert "2412.04315" in found.price_source
    by_model = {entry.model: entry for entry in found.passed}
    assert by_model["GPT-3-175B"].by == "Chinchilla-70B"
    assert by_model["Gopher-280B"].on == datetime.date(2022, 3, 29)
    assert 60 < found.median_days.value < 300
    assert found.median_days.value < found.median_days_half.value
