"""What a page and a table say of changed answers: volume, direction, divergences."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from compresslab.records import Fidelity, GeneratedAnswers, Mean, StudyRecord, TextDivergence
from compresslab.report.facts import changes
from compresslab.report.html import render
from compresslab.report.merge import merged
from compresslab.report.tables import divergences, fidelity
from report.studies import quickstart

HEADING = "How differently does it answer?"
CHOICES = Fidelity(
    task="arc_easy", items=100, left_out=2, changed=0.3, lost=12, gained=5, mcnemar=0.14, kl=Mean(value=0.0412, stderr=0.003, items=100),
    gold=Mean(value=-0.21, stderr=0.02, items=100),
)  # fmt: skip
WORD = Fidelity(task="lambada", items=50, left_out=0, changed=None, lost=3, gained=1, mcnemar=0.6, kl=None, gold=None)
TEXTS = Fidelity(
    task="gsm8k", items=20, left_out=0, changed=0.75, lost=None, gained=None, mcnemar=None, kl=None, gold=None,
    generated=GeneratedAnswers(common=31.5, length=210.0, parent_length=180.0, tokens=77.7, parent_tokens=66.6, repetition=0.123,
                               parent_repetition=0.01),
)  # fmt: skip


def with_fidelity(*found: Fidelity) -> StudyRecord:
    """The quickstart, of which the second variant was compared."""
    study = quickstart()
    first, second, *others = study.variants
    return study.model_copy(update={"variants": [first, second.model_copy(update={"fidelity": list(found)}), *others]})


def test_the_changes_of_all_tasks_are_counted_over_the_items_that_tell() -> None:
    [row] = changes(with_fidelity(CHOICES, WORD, TEXTS))
    assert row.variant.name == "bnb-nf4"
    assert row.items == 170
    assert row.changed == pytest.approx((30 + 15) / 120)  # of a single likelihood no answer is stored
    assert (row.decided, row.lost, row.gained) == (150, 15, 6)  # a graded metric is neither right nor wrong
    assert row.p == pytest.approx(binomtest(6, 21).pvalue)


def test_the_page_tells_volume_and_direction() -> None:
    page = render(with_fidelity(CHOICES, WORD, TEXTS))
    assert HEADING in page
    assert "A small KL divergence from the parent says little about accuracy" in page
    assert "<td>37.5 %</td><td>15<small>10.0 %</small></td><td>6<small>4.0 %</small></td><td>−9<small>p 0.078</small></td>" in page
    assert "<td>100<small>2 not asked alike</small></td>" in page
    assert "<td>0.0412<small>± 0.0030</small></td><td>−0.21<small>± 0.020</small></td>" in page
    assert "<td>25.0 %</td><td>31.5<small>of 180</small></td><td>77.7<small>66.6</small></td>" in page
    assert "<td>12.3 %<small>1.0 %</small></td>" in page
    assert "<td>not stored<small>not stored</small></td>" in page


def test_the_page_tells_how_many_answers_the_limit_cut() -> None:
    assert TEXTS.generated is not None
    cut = TEXTS.model_copy(update={"generated": TEXTS.generated.model_copy(update={"cut": 0.35, "parent_cut": 0.05})})
    assert "<td>35.0 %<small>5.0 %</small></td>" in render(with_fidelity(cut))
    assert fidelity(with_fidelity(cut)).loc[0, ["cut", "parent_cut"]].tolist() == [0.35, 0.05]


def test_what_is_not_known_of_any_task_is_missing() -> None:
    [row] = changes(with_fidelity(TEXTS))
    assert (row.decided, row.lost, row.gained) == (0, 0, 0)
    [row] = changes(with_fidelity(WORD))
    assert row.changed is None
    assert "Generated answers" not in render(with_fidelity(WORD))


def test_a_page_on_which_nobody_looked_has_no_section() -> None:
    assert HEADING not in render(quickstart())
    assert "#fidelity" not in render(quickstart())


def test_the_divergence_on_a_text_has_a_table_of_its_own() -> None:
    study = quickstart()
    found = TextDivergence(
        source="prose.txt", sha256="ab" * 32, length=512, documents="bounded", bos="never",
        kl=Mean(value=0.0123, stderr=0.002, items=16), agreement=0.912,
        weights="dequantized", parent_weights="as stored",
    )  # fmt: skip
    study = study.model_copy(update={"variants": [one.model_copy(update={"divergence": found}) for one in study.variants[1:2]]})
    page = render(study)
    assert HEADING in page
    assert "<td>0.0123<small>± 0.0020</small></td><td>91.2 %</td><td>8192<small>16 × 512</small></td>" in page
    assert "<small>abababababab, documents bounded, bos never</small>" in page
    assert divergences(study).loc[0, ["kl", "kl_stderr", "agreement"]].tolist() == [0.0123, 0.002, 0.912]
    assert divergences(study).loc[0, ["documents", "bos"]].tolist() == ["bounded", "never"]


def test_what_stored_logits_see_of_a_divergence_stands_beside_it_and_is_warned_of_if_it_is_little() -> None:
    study = quickstart()
    found = TextDivergence(
        source="prose.txt", sha256="ab" * 32, length=512, kl=Mean(value=0.02, stderr=0.002, items=16), agreement=0.912,
        top_k={64: 0.0122, 1024: 0.0199}, weights="dequantized", parent_weights="as stored",
    )  # fmt: skip
    study = study.model_copy(update={"variants": [one.model_copy(update={"divergence": found}) for one in study.variants[1:2]]})
    page = render(StudyRecord.model_validate_json(study.model_dump_json()))
    assert 'k 64: 0.0122<small class="lowered">61.0 % ⚠ k is too small for this variant</small>' in page
    assert "k 1024: 0.0199<small>99.5 %</small>" in page
    assert divergences(study).loc[0, ["top_k", "kl_top_k"]].tolist() == [64, 0.0122]


def test_the_table_has_a_row_a_task() -> None:
    frame = fidelity(with_fidelity(CHOICES, TEXTS)).set_index("task")
    assert frame["against"].tolist() == ["base", "base"]
    assert frame.loc["arc_easy", ["kl", "kl_stderr", "gold", "lost"]].tolist() == [0.0412, 0.003, -0.21, 12]
    assert frame.loc["gsm8k", ["tokens", "parent_tokens", "repetition"]].tolist() == [77.7, 66.6, 0.123]


def test_a_page_of_several_studies_has_the_changes_of_each() -> None:
    left, right = (with_fidelity(CHOICES).model_copy(update={"study": name}) for name in ("left", "right"))
    assert [row.variant.name for row in changes(merged([left, right, quickstart()]))] == ["left/bnb-nf4", "right/bnb-nf4"]
