"""Several studies on one page: nothing renamed twice, nothing shared shown twice, and a warning where figures do not compare."""

from __future__ import annotations

from pathlib import Path

import pytest

from compresslab.records import StudyRecord
from compresslab.report.figures import figures
from compresslab.report.html import render, write
from compresslab.report.index import write_index
from compresslab.report.merge import differences, merged

from . import studies


def keyed(study: StudyRecord, name: str, shared: tuple[str, ...] = ("base",)) -> StudyRecord:
    """The study under another name, with content keys of its own but for some variants."""
    variants = [
        one.model_copy(update={"keys": {"model": one.name if one.name in shared else f"{name}-{one.name}"}}) for one in study.variants
    ]
    return study.model_copy(update={"study": name, "variants": variants, "recipe": f"study: {name}\nitems: {len(name)}\n"})


def test_variants_are_named_after_their_studies_and_what_is_shared_stands_once() -> None:
    left, right = keyed(studies.quickstart(), "left"), keyed(studies.quickstart(), "right")
    joint = merged([left, right])
    names = [variant.name for variant in joint.variants]
    assert names == [f"left/{one.name}" for one in left.variants] + [f"right/{one.name}" for one in right.variants[1:]]
    child = next(variant for variant in joint.variants if variant.name == "right/depth-24")
    assert (child.parent, child.root) == ("left/base", "left/base")
    assert {one.against for one in child.comparisons} == {"left/base"}


def test_a_variant_with_other_answers_is_another_one() -> None:
    left, right = keyed(studies.quickstart(), "left"), keyed(studies.quickstart(), "right", shared=())
    assert len(merged([left, right]).variants) == 2 * len(left.variants)


def test_the_same_base_on_another_ruler_is_another_one() -> None:
    left, right = keyed(studies.quickstart(), "left"), keyed(studies.quickstart(), "right")
    base = right.variants[0]
    assert base.density is not None
    ruled = base.model_copy(update={"density": base.density.model_copy(update={"tokens": 5e11})})
    joint = merged([left, right.model_copy(update={"variants": [ruled, *right.variants[1:]]})])
    assert [variant.name for variant in joint.variants if not variant.parent] == ["left/base", "right/base"]
    # and what only names and keys tell apart, such as two rulers over one store, keeps all its variants
    same = keyed(studies.quickstart(), "same", shared=tuple(one.name for one in left.variants))
    assert len(merged([same, same.model_copy(update={"study": "other"})]).variants) == 2 * len(left.variants) - 1


@pytest.mark.slow
def test_times_of_two_machines_are_drawn_apart_and_said_not_to_compare() -> None:
    left, right = keyed(studies.quickstart(), "left"), keyed(studies.quickstart(), "right", shared=())
    moved = [
        one.model_copy(update={"timing": one.timing and one.timing.model_copy(update={"machine": "another"})}) for one in right.variants
    ]
    machine = right.provenance.model_copy(update={"machine": "another"})
    joint = merged([left, right.model_copy(update={"variants": moved, "provenance": machine})])
    first, second = figures(joint).measured
    assert "left/depth-24" in first
    assert "right/depth-24" not in first
    assert "measured on another" in second
    assert any("different machines" in note for note in joint.notes)


def test_published_studies_which_have_no_keys_share_nothing() -> None:
    left = studies.quickstart(study="left")
    right = studies.quickstart(study="right")
    assert len(merged([left, right]).variants) == 2 * len(left.variants)


def test_what_does_not_compare_is_said() -> None:
    left, right = keyed(studies.quickstart(), "left"), keyed(studies.quickstart(), "right", shared=())
    assert not any("⚠" in note for note in [*merged([left, right]).notes, *merged([left, right]).caveats])
    ruled = [one.model_copy(update={"density": one.density and one.density.model_copy(update={"tokens": 5e11})}) for one in right.variants]
    other = merged([left, right.model_copy(update={"variants": ruled})])
    rulers = "different rulers (left: olmo-ladder, D0 = 1 T tokens; right: olmo-ladder, D0 = 500 B tokens)"
    assert any(rulers in caveat for caveat in other.caveats)
    ray = {"tokens": None, "tokens_per_parameter": 200.0}
    along = [one.model_copy(update={"density": one.density and one.density.model_copy(update=ray)}) for one in right.variants]
    caveats = merged([left, right.model_copy(update={"variants": along})]).caveats
    assert any("right: olmo-ladder, D0 = 200 tokens a parameter)" in caveat for caveat in caveats)
    fewer = [one.model_copy(update={"scores": [score.model_copy(update={"items": 50}) for score in one.scores]}) for one in right.variants]
    assert any("different tasks or numbers of items" in note for note in merged([left, right.model_copy(update={"variants": fewer})]).notes)
    asked = [
        one.model_copy(update={"scores": [score.model_copy(update={"prompts": "cd"}) for score in one.scores]}) for one in right.variants
    ]
    assert any("other prompts" in note for note in merged([left, right.model_copy(update={"variants": asked})]).notes)


@pytest.mark.slow
def test_the_page_shows_what_the_recipes_set_differently() -> None:
    left, right = keyed(studies.quickstart(), "left"), keyed(studies.quickstart(), "other")
    found = differences([left, right])
    assert [line for line in found[0].lines if line.startswith(("-study", "+study"))] == ["-study: left", "+study: other"]
    page = render(merged([left, right]), found)
    assert '<span class="raised">+items: 5</span>' in page
    assert "denser than left/base" in page
    assert "denser than its base" in render(merged([left, keyed(studies.quickstart(), "other", shared=())]))
    assert "The recipes are the same." in render(merged([left, right]), differences([left, left]))


def test_the_index_lists_every_study_with_its_verdicts_and_what_cannot_be_read(tmp_path: Path) -> None:
    write(studies.quickstart(study="<b>one</b>"), tmp_path / "one two")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.json").write_text("{")
    text = write_index(tmp_path).read_text(encoding="utf-8")
    assert 'href="one%20two/index.html"' in text
    assert "&lt;b&gt;one&lt;/b&gt;" in text
    assert "No variant is denser than the base" in text
    assert "lowered</span>" in text
    assert "is damaged: it is no whole JSON; `compresslab report RECIPE` writes it again" in text
    assert text.index("one%20two") < text.index("broken")


def test_somebody_elses_page_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<h1>my site</h1>")
    write_index(tmp_path)
    assert (tmp_path / "index.html").read_text() == "<h1>my site</h1>"


def test_an_index_of_nothing_is_a_page(tmp_path: Path) -> None:
    assert "No study has been reported here yet." in write_index(tmp_path).read_text(encoding="utf-8")


def test_an_old_page_beside_a_new_one_has_its_own_count_and_d0_in_every_place_that_names_one() -> None:
    """The old page is by parameters at 1T tokens; the new one counts a quantized model by bits, at 200 tokens a parameter."""
    old, new = keyed(studies.quickstart(), "old"), keyed(studies.quickstart(), "new", shared=())
    variants = []
    for one in new.variants:
        assert one.density is not None
        density = one.density.model_copy(update={"tokens": None, "tokens_per_parameter": 200.0})
        count = "bits" if one.steps[-1].kind == "quantize" else "params"
        comparisons = [comparison.model_copy(update={"count": count}) for comparison in one.comparisons]
        variants.append(one.model_copy(update={"density": density, "comparisons": comparisons}))
    joint = merged([old, new.model_copy(update={"variants": variants})])
    page = render(joint, differences([old, new]))
    head = page[: page.index("<nav")]
    assert "old: olmo-ladder, D0 = 1 T tokens; new: olmo-ladder, D0 = 200 tokens a parameter" in head
    assert "quantize bnb-nf4 by parameters in old, by stored bits in new" in head
    provenance = page[page.index("<dt>Reference</dt>") :][:400]
    assert "D0 = 1 T tokens (old/base); olmo-ladder, D0 = 200 tokens a parameter (new/base)" in provenance
    row = page[page.index('data-variant="new/bnb-nf4"') :][:2500]
    assert "by stored bits" in row
    assert "<small>olmo-ladder, D0 = 200 tokens a parameter</small>" in row
    assert "over the verdicts of each study, whatever they count" in page


def test_pages_that_count_alike_at_one_d0_have_no_such_caveat_and_one_ruler() -> None:
    left, right = keyed(studies.quickstart(), "left"), keyed(studies.quickstart(), "right")
    page = render(merged([left, right]), differences([left, right]))
    assert "count N differently" not in page
    assert "<dt>Reference</dt><dd>olmo-ladder, D0 = 1 T tokens</dd>" in page
