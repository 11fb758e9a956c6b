"""The error of modelled time: what is drawn for a known and an unknown engine, and what reaches r by time."""

import json
import math
from importlib import resources

import numpy as np
import pytest

from compresslab.catalog.hardware import THIS_MACHINE, Hardware, load_hardware
from compresslab.density import Measured, assess
from compresslab.density.time import engine_factors
from compresslab.density.time.drawn_times import MEASURED, log_seconds, measured_ratio
from compresslab.density.time.engine_errors import draw_engines, measured_engines, precision_class
from compresslab.recipe.schema import DensityConfig
from compresslab.records import ItemScores, Timing

A100, BORROWED = load_hardware("a100-80g"), load_hardware("rtx-4090")
HERE = Hardware(name=THIS_MACHINE, flops=1e12, bandwidth=1e11, source="measured")
CONFIG = DensityConfig(resamples=400)


def own_errors(name):
    return next(engine for engine in measured_engines() if (engine.engine, engine.hardware) == ("vLLM 0.6.3", "a100-80g")).quantized[name]


def study(child_model, precision="BF16", timing=None, root_model="Qwen2.5-7B-Instruct", hardware=(A100, BORROWED, HERE)):
    """The comparison of a child with its root; both answered the same items and are equally good."""
    rng = np.random.default_rng(0)
    loss = rng.gamma(8, 0.1, 200)
    right, none = [float(i % 2) for i in range(200)], [0] * 200
    answered = ItemScores(task="arc_easy", item=list(map(str, range(200))), correct=right, choice=none, gold=none, bits_per_byte=list(loss))
    items = {"arc_easy": answered}
    variants = []
    for name, model, stored in (("root", root_model, "BF16"), ("child", child_model, precision)):
        shape, size = engine_factors.model(model, stored)
        parent = "" if name == "root" else "root"
        variants.append(
            Measured(
                name=name, parent=parent, root="root", size=size, shape=shape, items=items, timing=timing if parent else None, runs=["root"]
            )
        )
    density, comparisons = assess(variants, CONFIG, list(hardware))["child"]
    return density, comparisons[0]


def width(interval):
    return math.log(interval.high / interval.low)


def timed(ratio, low, high, rounds=5):
    return Timing(
        machine="m", batch=1, prompt=512, decode=128, rounds=rounds, seconds=1.0, prefill_seconds=0.1, parent_seconds=1.0, ratio=ratio,
        low=low, high=high, weights="w",
    )  # fmt: skip


def test_the_shipped_errors_are_a_fresh_fit():
    shipped = json.loads((resources.files("compresslab") / "data" / "engine_errors.json").read_text("utf-8"))
    fresh = engine_factors.measured_engines()
    assert [entry["engine"] for entry in fresh] == [entry["engine"] for entry in shipped]
    for one, other in zip(fresh, shipped, strict=True):
        assert one["quantized"].keys() == other["quantized"].keys()
        for name, errors in one["quantized"].items():
            assert errors == pytest.approx(other["quantized"][name], abs=0.01)


@pytest.mark.parametrize(
    ("model", "precision", "expected"),
    [
        ("Qwen2.5-7B-Instruct", "BF16", "16 bits"),
        ("Qwen2.5-0.5B-Instruct", "GPTQ-Int4", "4-bit weights"),
        ("Qwen2.5-0.5B-Instruct", "GPTQ-Int8", "8-bit weights"),
        ("Qwen2.5-32B-Instruct", "AWQ", "4-bit weights"),
        ("Qwen3-8B", "FP8", "8-bit arithmetic"),
        ("Qwen3-30B-A3B", "FP8", "8-bit arithmetic, mixture"),
    ],
)
def test_the_precision_class_is_that_of_the_layers(model, precision, expected):
    assert precision_class(*engine_factors.model(model, precision)) == expected


def test_a_known_engine_has_its_own_errors_and_an_unknown_one_those_of_all():
    known, unknown = draw_engines(A100, 2000, 0), draw_engines(BORROWED, 2000, 0)
    assert known.name == "vLLM 0.6.3"
    assert set(np.round(known.precision_errors("4-bit weights"), 3)) <= set(own_errors("4-bit weights"))
    assert unknown.name == "an unknown engine"
    assert len(set(unknown.which)) == len(measured_engines())
    assert np.std(unknown.precision_errors("4-bit weights")) > 1.5 * np.std(known.precision_errors("4-bit weights"))


def test_a_class_that_no_engine_measured_as_a_mixture_has_the_errors_of_its_dense_form():
    known = draw_engines(A100, 500, 0)
    assert list(known.precision_errors("4-bit weights, mixture")) == list(known.precision_errors("4-bit weights"))


def test_an_engine_that_was_left_out_is_unknown():
    others = [engine for engine in measured_engines() if engine.engine != "vLLM 0.6.3"]
    bare = Hardware(name="a100-80g", flops=A100.flops, bandwidth=A100.bandwidth, source="data sheet", engine="vLLM 0.6.3")
    drawn = draw_engines(bare, 500, 0, others)
    assert not drawn.known
    assert {profile.engine for profile in drawn.profiles} == {engine.engine for engine in others}


def test_factors_of_ones_own_are_kept_where_the_engines_errors_are_unknown():
    own = A100.model_copy(update={"name": "mine", "engine": "my engine"})
    drawn = draw_engines(own, 500, 0)
    assert not drawn.known
    assert drawn.name == "my engine"
    assert {profile.bandwidth_efficiency for profile in drawn.profiles} == {own.bandwidth_efficiency}


def test_r_by_time_of_a_quantized_child_carries_the_engines_error():
    density, found = study("Qwen2.5-7B-Instruct", "GPTQ-Int4")
    assert width(found.ratio) == pytest.approx(0, abs=1e-9), "both are equally good, so nothing but time has an error"
    assert width(found.ratio_time["a100-80g"]) > 0.1
    assert width(found.ratio_time["rtx-4090"]) > 2 * width(found.ratio_time["a100-80g"])
    assert found.verdict_time["a100-80g"] == "raised"
    assert found.verdict_time["rtx-4090"] == "inconclusive", "an unknown engine may run 4 bits no faster than 16"
    assert density.engines == {"a100-80g": "vLLM 0.6.3", "rtx-4090": "an unknown engine", THIS_MACHINE: "an unknown engine"}
    assert width(density.time["rtx-4090"]) > width(density.params)


def test_a_profile_without_factors_gives_an_interval_of_seconds():
    density, _ = study("Qwen2.5-7B-Instruct", "GPTQ-Int4")
    assert density.modelled_interval["rtx-4090"].high > 2 * density.modelled_interval["rtx-4090"].low
    assert width(density.modelled_interval["rtx-4090"]) > width(density.modelled_interval["a100-80g"])


def test_errors_of_the_same_shape_and_format_cancel():
    _, found = study("Qwen2.5-7B-Instruct")
    assert found.ratio_time["rtx-4090"] == found.ratio_time["a100-80g"] == found.ratio
    assert found.time_ratio["rtx-4090"].low == found.time_ratio["rtx-4090"].high == pytest.approx(1)


def test_a_smaller_model_in_16_bits_has_the_error_of_the_size():
    _, found = study("Qwen2.5-1.5B-Instruct")
    assert 0.02 < width(found.time_ratio["a100-80g"]) < width(found.time_ratio["rtx-4090"])
    assert found.time_ratio["a100-80g"].high < 1


def test_a_time_that_was_measured_has_only_the_measurements_error():
    timing = timed(0.5, 0.49, 0.52)
    density, found = study("Qwen2.5-7B-Instruct", "GPTQ-Int4", timing)
    assert density.engines[THIS_MACHINE] == MEASURED
    here = found.time_ratio[THIS_MACHINE]
    assert here.value == pytest.approx(0.5)
    assert 0.485 < here.low < 0.5 < here.high < 0.525
    assert found.ratio_time[THIS_MACHINE].value == pytest.approx(2, rel=0.05)
    assert found.verdict_time[THIS_MACHINE] == "raised"
    assert width(found.ratio_time["rtx-4090"]) > 10 * width(found.ratio_time[THIS_MACHINE])


def test_more_rounds_make_the_same_spread_a_smaller_error():
    def spread(rounds):
        drawn = measured_ratio(study_variant(timed(1.0, 0.9, 1.1, rounds)), HERE, CONFIG)
        return float(np.std(drawn.draws))

    assert spread(9) < spread(3)
    assert spread(1) > 0


def study_variant(timing):
    shape, size = engine_factors.model("Qwen2.5-7B-Instruct")
    return Measured(name="child", parent="root", root="root", size=size, shape=shape, timing=timing)


def test_a_timing_says_nothing_about_another_machine():
    assert measured_ratio(study_variant(timed(0.5, 0.49, 0.52)), A100, CONFIG) is None
    assert measured_ratio(study_variant(None), HERE, CONFIG) is None


def test_the_median_of_the_draws_is_the_modelled_time_shifted_by_the_engines_error():
    sized, base = engine_factors.model("Qwen2.5-7B-Instruct", "GPTQ-Int4"), engine_factors.model("Qwen2.5-7B-Instruct")
    point, drawn, _ = log_seconds(*sized, (base[1], base[0])[::-1], CONFIG.workload, A100, 4000, 0)
    assert np.median(drawn) == pytest.approx(point + np.median(own_errors("4-bit weights")), abs=0.05)
