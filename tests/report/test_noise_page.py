"""Noise floors on the page, in the table and in words."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from compresslab.cli.run import summary
from compresslab.records import DivergenceFloor, Interval, Noise, NoiseFloor, StudyRecord
from compresslab.report import words
from compresslab.report.facts import noise_sentences, within_noise
from compresslab.report.html import render
from compresslab.report.merge import merged
from compresslab.report.tables import noise
from report.studies import quickstart

TWICE = Interval(value=0.004, low=0.0021, high=0.025)
LOSS = NoiseFloor(
    against="base", relation="parent", quantity="bits per byte", task="", items=450, values=[1.1, 1.104, 1.096], others=[1.112],
    effect=-0.012, degrees=2, twice=TWICE, floor=0.014,
)  # fmt: skip
SCORE = LOSS.model_copy(update={"quantity": "accuracy", "effect": -0.05})
EQUAL = LOSS.model_copy(update={"quantity": "ln density", "twice": None, "floor": None})
BY_TASK = LOSS.model_copy(update={"task": "arc_easy", "items": 150})
KL = DivergenceFloor(against="base", quantity="KL of options", task="", items=450, to_parent=[0.3, 0.32, 0.28], between=[0.02, 0.04] * 3)


def with_noise(*found: NoiseFloor | DivergenceFloor) -> StudyRecord:
    study = quickstart()
    told = Noise(
        differences=[one for one in found if isinstance(one, NoiseFloor)],
        divergences=[one for one in found if isinstance(one, DivergenceFloor)],
    )
    first, second, *others = study.variants
    return study.model_copy(update={"variants": [first, second.model_copy(update={"noise": told}), *others]})


def test_a_difference_stands_beside_that_of_two_runs() -> None:
    assert words.noise(LOSS) == "bits per byte −0.012, two runs differ by 0.0040 [0.0021, 0.025]: smaller than the noise floor, 0.014"
    assert words.noise(SCORE).endswith("larger than the noise floor, 0.014")
    assert words.noise(EQUAL) == "ln density −0.012: no noise floor: the replicates are equal in it"
    told = (
        "KL of options 0.300, between two runs 0.030 [0.020, 0.040]: larger than between any two runs (by chance in at most 1 of 4 cases)"
    )
    assert words.noise(KL) == told
    assert words.noise(KL.model_copy(update={"to_parent": [0.039, 0.3, 0.3]})).endswith("not larger than between some two runs")
    equal = KL.model_copy(update={"between": [0.0, 3e-17] * 3})
    assert equal.larger is None
    assert words.noise(equal).endswith("no noise floor: the replicates are equal in it")


def test_two_replicates_are_told_to_be_few() -> None:
    two = LOSS.model_copy(update={"degrees": 1})
    assert "with two replicates the interval is very wide, take three or more" in words.noise(two)
    assert "<small>with two replicates the interval is very wide, take three or more</small>" in render(with_noise(two))
    assert "with two replicates the" not in render(with_noise(LOSS))


def test_replicates_that_are_the_same_model_are_told() -> None:
    """As where two of three calibration samples chose the same layers. Equal accuracies do not say that the models are equal."""
    same = LOSS.model_copy(update={"values": [1.1, 1.1, 1.096]})
    assert words.noise(same).endswith("; only 2 of 3 replicates are different models, so the floor is a rough one")
    assert "<small>only 2 of 3 replicates are different models" in render(with_noise(same))
    assert "different models" not in words.noise(same.model_copy(update={"quantity": "accuracy"}))
    siblings = LOSS.model_copy(update={"relation": "sibling", "others": [1.2, 1.2, 1.2], "degrees": 4})
    assert words.noise(siblings).endswith("; only 4 of 6 replicates are different models, so the floor is a rough one")


def test_the_page_has_the_mean_over_tasks_and_each_task() -> None:
    page = render(with_noise(LOSS, BY_TASK, SCORE, KL, EQUAL))
    means = re.search(r'aria-label="Noise floors".*?</table>', page, re.DOTALL)
    by_task = re.search(r'aria-label="Noise floors by task".*?</table>', page, re.DOTALL)
    assert means
    assert by_task
    assert means[0].count("<tr data-variant") == 4
    assert "<td>−0.012</td><td>0.0040<small>[0.0021, 0.025]</small></td><td>0.014</td>" in means[0]
    assert "<td>0.300</td><td>0.030<small>from 0.020 to 0.040</small></td><td>0.040</td>" in means[0]
    assert "arc_easy, 150 items" in by_task[0]


def test_a_figure_that_two_runs_would_give_is_marked_where_it_stands() -> None:
    study = with_noise(LOSS, SCORE)
    assert within_noise(study.variants[1]) == {"bits per byte"}
    assert render(study).count("within noise</a>") == 1
    assert "within noise</a>" not in render(with_noise(SCORE, EQUAL, BY_TASK))


def test_a_page_without_replicates_has_no_noise_floor() -> None:
    assert 'id="noise"' not in render(quickstart())


def test_show_tells_it_after_the_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    study = with_noise(LOSS, SCORE, BY_TASK)
    [sentence] = noise_sentences(study)
    assert sentence.startswith("bnb-nf4 against base: bits per byte −0.012, two runs")
    summary(Console(width=200), study)
    assert sentence in capsys.readouterr().out


def test_the_table_has_a_row_a_floor() -> None:
    frame = noise(with_noise(LOSS, BY_TASK, KL, EQUAL)).set_index(["quantity", "task"])
    assert frame.loc[("bits per byte", ""), ["effect", "twice", "twice_high", "floor", "larger"]].tolist() == [
        -0.012,
        0.004,
        0.025,
        0.014,
        False,
    ]
    assert frame.loc[("KL of options", ""), ["effect", "floor", "larger"]].tolist() == [pytest.approx(0.3), 0.04, True]
    assert frame.loc[("ln density", ""), "larger"] is None


def test_several_studies_on_a_page_keep_their_floors() -> None:
    joint = merged([with_noise(LOSS, KL), quickstart(study="other")])
    [found] = [variant.noise for variant in joint.variants if variant.noise]
    assert found.differences[0].against == found.divergences[0].against
    assert found.differences[0].against in {variant.name for variant in joint.variants}
