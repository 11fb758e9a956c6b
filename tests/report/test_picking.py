"""What a variant is picked by: the quantities, and the panel's data."""

from __future__ import annotations

import math

import pytest

from compresslab.records import AttentionLayers, Interval, StudyRecord, VariantRecord
from compresslab.report import facts, words
from compresslab.report.html import render
from compresslab.report.picking.choices import BYTES, choices
from compresslab.report.picking.quantities import accuracy_change, bytes_of_a_token, measured_seconds, memory_at_inference, seconds_to_make

from . import studies


def named(study: StudyRecord, name: str) -> VariantRecord:
    return next(variant for variant in study.variants if variant.name == name)


def with_attention(variant: VariantRecord, *layers: AttentionLayers) -> VariantRecord:
    last = variant.steps[-1]
    changed = last.model_copy(update={"shape": last.shape.model_copy(update={"attention": layers})})
    return variant.model_copy(update={"steps": [*variant.steps[:-1], changed]})


def test_memory_is_the_stored_weights_with_keys_and_values_of_the_request():
    study = studies.quickstart()
    variant = named(study, "depth-24")
    assert variant.size
    # 30 layers, 192 features of K and as many of V, 512 + 128 tokens, 2 bytes
    assert memory_at_inference(variant, study) == variant.size.stored_bytes + 30 * 2 * 192 * 640 * 2
    batched = study.model_copy(update={"workload": {"batch": 4, "prompt": 512, "decode": 128}})
    assert memory_at_inference(variant, batched) == variant.size.stored_bytes + 4 * 30 * 2 * 192 * 640 * 2


def test_a_window_and_a_state_hold_no_more_than_they_are():
    study = studies.quickstart()
    variant = with_attention(
        named(study, "base"), AttentionLayers(layers=2, kept=10, read=10, window=100), AttentionLayers(layers=3, state=7)
    )
    assert variant.size
    assert memory_at_inference(variant, study) == variant.size.stored_bytes + (2 * 100 * 10 + 3 * 7) * 2


def test_what_is_not_known_has_no_memory():
    study = studies.with_failure()
    assert memory_at_inference(named(study, "gptq"), study) is None
    assert memory_at_inference(named(study, "base"), study.model_copy(update={"workload": {}})) is None


def test_measured_times_compare_although_the_machine_was_slower_when_a_variant_was_timed():
    study = studies.quickstart()
    base, variant = named(study, "base"), named(study, "bnb-nf4")
    assert base.timing
    assert variant.timing
    assert variant.timing.ratio
    slow = variant.timing.model_copy(update={"seconds": 10 * variant.timing.seconds, "parent_seconds": 10 * base.timing.seconds})
    loaded = study.model_copy(
        update={"variants": [one if one is not variant else one.model_copy(update={"timing": slow}) for one in study.variants]}
    )
    assert measured_seconds(named(loaded, "bnb-nf4"), loaded) == pytest.approx(base.timing.seconds * variant.timing.ratio)
    chosen = {one["name"]: one["times"] for one in choices(loaded)["variants"]}
    (device,) = [name for name in chosen["base"] if name.startswith("measured")]
    assert chosen["bnb-nf4"][device][0] == pytest.approx(chosen["base"][device][0] * variant.timing.ratio)
    elsewhere = named(loaded, "bnb-nf4").model_copy(update={"timing": slow.model_copy(update={"machine": "another"})})
    assert measured_seconds(elsewhere, loaded) == slow.seconds


def test_bytes_of_a_token_are_the_weights_at_their_bits_and_the_cache():
    study = studies.quickstart()
    variant = named(study, "bnb-nf4")
    size, shape = variant.size, variant.steps[-1].shape
    assert size
    # each of 128 tokens attends to 512 to 639 earlier ones and itself, and writes its own keys and values
    cache = sum(30 * 384 * 2 * (512 + place + 1 + 1) for place in range(128)) / 128
    assert bytes_of_a_token(variant, study) == pytest.approx(size.counted * shape.weight_bits / 8 + cache)


def test_the_change_of_accuracy_is_that_of_the_means_with_the_interval_of_independent_tasks():
    study = studies.quickstart()
    tasks = facts.shared_tasks(study)
    found = accuracy_change(named(study, "depth-24"), "root", tasks)
    comparison = facts.comparison_with(named(study, "depth-24"), "root")
    assert found
    assert comparison
    assert found.value == pytest.approx(sum(task.accuracy.value for task in comparison.tasks) / 4)
    halves = [(task.accuracy.high - task.accuracy.low) / 2 for task in comparison.tasks]
    below = [task.accuracy.value - task.accuracy.low for task in comparison.tasks]
    assert found.value - found.low == pytest.approx(math.hypot(*below) / 4)
    assert found.high - found.low < 2 * max(halves)
    assert accuracy_change(named(study, "depth-24"), "root", [*tasks, "another"]) is None
    assert accuracy_change(named(study, "base"), "root", tasks) is None


def test_only_the_own_step_counts_as_seconds_to_make():
    study = studies.quickstart()
    assert seconds_to_make(named(study, "depth-24-healed")) == 90
    assert seconds_to_make(named(study, "base")) is None


def test_an_adopted_model_was_not_made_here():
    """Its node loads and checks it. In a study of such models alone, as `assess` writes it, the table has no such column."""
    study = studies.quickstart()
    base, child = study.variants[0], named(study, "depth-24")
    adopted = child.model_copy(update={"steps": [base.steps[0], child.steps[-1].model_copy(update={"kind": "adopt", "method": "adopt"})]})
    assert adopted.costs["model"].seconds > 0
    assert seconds_to_make(adopted) is None
    page = render(study.model_copy(update={"variants": [base, adopted]}))
    assert 'data-label="Accuracy"' in page
    assert 'data-label="To make"' not in page
    further = child.model_copy(update={"steps": [*adopted.steps, child.steps[-1]]})
    assert seconds_to_make(further) == child.costs["model"].seconds


def test_the_panel_has_the_texts_of_the_tables_and_no_unnamed_step_or_failure():
    study = studies.with_failure()
    found = choices(study)
    assert [one["name"] for one in found["variants"]] == [
        "base",
        "bnb-nf4",
        "depth-24",
        "depth-24-healed",
        "depth-24-healed-nf4",
        "width-75",
    ]
    nf4, variant = found["variants"][1], named(study, "bnb-nf4")
    assert variant.size
    assert nf4["stored"] == [variant.size.stored_bytes, words.size(variant.size.stored_bytes)]
    assert nf4["accuracy"][1] == words.percent(facts.mean_accuracy(variant, facts.shared_tasks(study)))
    assert nf4["times"]["h100-sxm"] == [variant.density.modelled_seconds["h100-sxm"], "7.6 ms"] if variant.density else False
    assert nf4["change"][0] == pytest.approx(0.0045)
    assert found["devices"][-1] == BYTES
    assert any(name.startswith("measured on") for name in found["devices"])
    assert {one["name"]: one["device"] for one in found["profiles"]} == {"phone": "", "laptop": "this-machine", "server": "h100-sxm"}


def test_an_infinite_interval_is_none():
    study = studies.quickstart()
    base = study.variants[0]
    assert base.density
    wide = base.density.model_copy(update={"params": Interval(value=1, low=0, high=math.inf)})
    found = choices(study.model_copy(update={"variants": [base.model_copy(update={"density": wide}), *study.variants[1:]]}))
    assert found["variants"][0]["density"] is None
