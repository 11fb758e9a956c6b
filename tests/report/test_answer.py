"""The answer in a sentence says what the verdicts say, for every mixture of them."""

from __future__ import annotations

import pytest

from compresslab.records import StudyRecord, VariantRecord
from compresslab.report.answer import answer

from . import studies


def with_quality(*bpbs: float) -> StudyRecord:
    """Children of one base and of its size, so that r depends on bits-per-byte alone."""
    root = studies.base()
    last = studies.step("retrain", "full", 134.5e6, 16)
    return studies.study([root, *(studies.child(root, root, f"v{place}", last, bpb, 1.0) for place, bpb in enumerate(bpbs))])


UP, OPEN, DOWN, WORSE = 0.80, 0.93, 1.1, 1.3


@pytest.mark.parametrize(
    ("bpbs", "verdict", "expected"),
    [
        ((DOWN, WORSE), "lowered", "No variant is denser than the base by parameters: all 2 are less dense; the least costly is v0"),
        ((UP, UP), "raised", "Each of 2 variants is denser than the base by parameters"),
        ((UP, DOWN, OPEN), "raised", "1 of 3 variants is denser than the base by parameters, most of all v0"),
        (
            (DOWN, OPEN),
            "inconclusive",
            "No variant is shown to be denser than the base by parameters: 1 of 2 is less dense, 1 undecided; best is v1",
        ),
        ((OPEN, OPEN), "inconclusive", "Undecided: none of 2 variants can be told apart in density from the base by parameters;"),
        ((DOWN,), "lowered", "v0 is less dense than the base by parameters:"),
        ((UP,), "raised", "v0 is denser than the base by parameters:"),
        ((OPEN,), "inconclusive", "v0 cannot be told apart in density from the base by parameters:"),
        ((), "", "No answer: the study has no compressed variant"),
    ],
)
def test_headline_follows_the_verdicts(bpbs: tuple[float, ...], verdict: str, expected: str) -> None:
    found = answer(with_quality(*bpbs))
    assert found.verdict == verdict
    assert found.headline.startswith(expected)


def test_training_that_ends_below_the_base_has_recovered_and_not_raised_density() -> None:
    found = answer(studies.quickstart())
    assert found.verdict == "lowered"
    recovered = "▲ 2 recovered density that was lost before (depth-24-healed and width-75), ▼ 4 lowered density."
    assert recovered in found.details[0]


def test_a_count_of_n_that_changes_the_tally_is_said_and_named_once_for_equal_hardware() -> None:
    details = answer(studies.quickstart()).details
    assert any(line.startswith("Counted by stored bits: 1 denser, 4 less dense; highest bnb-nf4") for line in details)
    assert any(line.startswith("Counted by modelled time on this-machine, rtx-4090 and h100-sxm: ") for line in details)


def test_a_step_that_is_only_modelled_to_be_faster_is_named() -> None:
    assert any("bnb-nf4 and depth-24-healed-nf4 ran slower" in line for line in answer(studies.quickstart()).details)


def test_without_any_density_there_is_no_verdict() -> None:
    root = studies.base().model_copy(update={"density": None})
    bare: list[VariantRecord] = [root, studies.failed()]
    found = answer(studies.study(bare))
    assert found.verdict == ""
    assert found.headline == "No answer: 1 variant in the study, but none has a density to compare."


def test_a_failed_variant_is_counted_as_missing() -> None:
    whole = studies.quickstart()
    found = answer(whole.model_copy(update={"variants": [*whole.variants, studies.failed()]}))
    assert any(line.startswith("1 named variant could not be compared with the base") for line in found.details)


def test_bounds_are_said_as_bounds() -> None:
    whole = with_quality(WORSE)
    last = whole.variants[1]
    bound = studies.interval(0.1, bound="<", extrapolated=True)
    changed = [comparison.model_copy(update={"ratio": bound}) for comparison in last.comparisons]
    found = answer(whole.model_copy(update={"variants": [whole.variants[0], last.model_copy(update={"comparisons": changed})]}))
    assert found.headline.replace("\u00a0", " ") == "v0 is less dense than the base by parameters: r < 0.100, extrapolated."


def counted(record: StudyRecord, **change: object) -> StudyRecord:
    """The record with every comparison changed."""
    variants = [
        variant.model_copy(update={"comparisons": [one.model_copy(update=change) for one in variant.comparisons]})
        for variant in record.variants
    ]
    return record.model_copy(update={"variants": variants})


def test_the_headline_counts_what_the_step_changed_and_names_it() -> None:
    by_bits = studies.interval(2.4)
    found = answer(counted(with_quality(DOWN), count="bits", ratio_bits=by_bits, verdict_bits="raised", rests_on=["a", "b", "c"]))
    assert found.verdict == "raised"
    assert found.headline.replace("\u00a0", " ").startswith("v0 is denser than the base by stored bits: r = 2.40")
    assert any("r by parameters compares the quality N̂ alone" in line for line in found.details)
    (side_by_side,) = [line for line in found.details if line.startswith("r by every count of N: parameters ")]
    assert "stored bits 2.4" in side_by_side
    assert "N̂ is the same in each and N is not" in side_by_side


def test_a_mixture_is_answered_for_by_its_active_parameters() -> None:
    found = answer(counted(with_quality(DOWN), count="active", ratio_active=studies.interval(4.8), verdict_active="raised"))
    assert found.headline.replace("\u00a0", " ").startswith("v0 is denser than the base by active parameters: r = 4.80")
    assert not any("N̂ alone" in line for line in found.details)


def test_variants_that_changed_different_things_are_each_labelled_by_their_count() -> None:
    whole = with_quality(UP, DOWN)
    packed = counted(whole, count="bits", ratio_bits=studies.interval(5.0), verdict_bits="raised").variants[2]
    found = answer(whole.model_copy(update={"variants": [*whole.variants[:2], packed]}))
    assert found.headline.startswith("Each of 2 variants is denser than the base, most of all v1 (")
    assert found.headline.endswith("by stored bits).")


@pytest.mark.parametrize(
    ("tasks", "expected"), [(["MMLU"], " on MMLU:"), (["MMLU", "BBH"], " on MMLU and BBH:"), (["MMLU", "BBH", "MATH"], " by parameters:")]
)
def test_a_verdict_that_rests_on_one_or_two_benchmarks_names_them(tasks: list[str], expected: str) -> None:
    assert expected in answer(counted(with_quality(DOWN), rests_on=tasks)).headline


def test_the_time_of_one_variant_is_named_by_what_it_was_measured_or_modelled_with(monkeypatch: pytest.MonkeyPatch) -> None:
    study = studies.quickstart()
    single = study.model_copy(update={"variants": study.variants[:2]})
    assert any("modelled time on this-machine" in line for line in answer(single).details)
    monkeypatch.setattr("compresslab.report.answer.engines", lambda _: {"this-machine": "the kernels measured here"})
    (line,) = [line for line in answer(single).details if line.startswith("r by every count of N")]
    assert "time with the kernels measured here on this-machine" in line
    assert "modelled time on this-machine" not in line
