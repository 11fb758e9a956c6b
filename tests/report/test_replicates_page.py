"""Replicates on the page and in the tables: both spreads beside each other, and no verdicts of their own."""

from __future__ import annotations

import re

from compresslab.records import StudyRecord
from compresslab.report import tables
from compresslab.report.answer import answer
from compresslab.report.html import render
from compresslab.report.merge import merged

from . import studies


def with_replicates(**fields: object) -> StudyRecord:
    """The quickstart with two further replicates of its healed variant."""
    study = studies.quickstart()
    told = {"replicates": 3, "ratio_of_each": [0.911, 0.922, 0.933], "spread_of_replicates": 0.0123, "spread_of_reference": 0.171, **fields}
    variants = []
    for variant in study.variants:
        if variant.name == "depth-24-healed":
            comparisons = [comparison.model_copy(update=told) for comparison in variant.comparisons]
            variant = variant.model_copy(update={"comparisons": comparisons})
            others = [
                variant.model_copy(update={"name": f"{variant.name}~{n}", "named": False, "replicate_of": variant.name, "comparisons": []})
                for n in (2, 3)
            ]
        variants.append(variant)
    return study.model_copy(update={"variants": [*variants, *others]})


def section(study: StudyRecord) -> str:
    found = re.search(r'aria-label="Replicates".*?</table>', render(study), re.DOTALL)
    return found[0] if found else ""


def test_the_spread_of_the_replicates_stands_beside_that_of_the_reference() -> None:
    table = section(with_replicates())
    assert "0.911, 0.922, 0.933" in table
    assert "<td>0.012</td><td>0.17</td>" in table
    assert "what the replicates differ by" in table


def test_replicates_without_a_spread_say_what_stands_in_its_place() -> None:
    equal = section(with_replicates(spread_of_replicates=None))
    assert re.search("what the reference.{1,5}s runs differ by: the replicates are equal, or beyond the reference", equal)
    neither = with_replicates(spread_of_replicates=None, spread_of_reference=None)
    assert "neither: the replicates are equal, or beyond" in section(neither)


def test_a_model_made_from_the_first_replicate_says_so() -> None:
    assert "made from the first of them" in section(with_replicates(ratio_of_each=[]))


def test_a_study_without_replicates_has_no_such_table() -> None:
    assert section(studies.quickstart()) == ""


def test_replicates_are_rows_without_a_verdict_and_change_no_answer() -> None:
    page = render(with_replicates())
    assert page.count("a replicate of <bdi>depth-24-healed</bdi>") == 2
    assert "mean of 3 replicates" in page
    assert "no verdict" not in page
    chains = re.findall(r'data-chain="([^"]*)"', page)
    assert any("depth-24-healed" in chain for chain in chains)
    assert not any("depth-24-healed~2" in chain for chain in chains)
    assert answer(with_replicates()) == answer(studies.quickstart())


def test_the_tables_name_both_spreads_and_what_a_replicate_is_of() -> None:
    study = with_replicates()
    ratios = tables.ratios(study)
    row = ratios[(ratios["variant"] == "depth-24-healed") & (ratios["basis"] == "params")].iloc[0]
    assert (row["replicates"], row["spread_of_replicates"], row["spread_of_reference"]) == (3, 0.0123, 0.171)
    variants = tables.variants(study).set_index("variant")
    assert variants.loc["depth-24-healed~2", "replicate_of"] == "depth-24-healed"
    assert variants.loc["depth-24", "replicate_of"] == ""


def test_replicates_keep_what_they_are_of_among_several_studies() -> None:
    joint = merged([with_replicates(), studies.quickstart(study="other")])
    found = {variant.name: variant.replicate_of for variant in joint.variants if variant.replicate_of}
    assert found == {f"smollm2-quickstart/depth-24-healed~{n}": "smollm2-quickstart/depth-24-healed" for n in (2, 3)}
