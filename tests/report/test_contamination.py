"""What a page says of items that are in a study's text."""

from __future__ import annotations

from compresslab.records import Alternative, TaskOverlap, TextOverlap
from compresslab.report.contamination import sentences
from compresslab.report.html import render
from compresslab.report.merge import merged
from compresslab.report.tables import overlaps
from report.studies import base, quickstart, study

HEADING = "Are the tasks' items in the text?"
TEXT = TextOverlap(
    role="calibration",
    source="notes.txt",
    sha256="ab" * 32,
    variants=["base", *(f"v{number}" for number in range(7))],
    tasks=[
        TaskOverlap(task="csqa", items=1221, words_13=["3"], words_8=["3", "5"], too_few_words=["9"]),
        TaskOverlap(task="piqa", items=1838),
    ],
)


def test_none_is_said_as_such() -> None:
    [sentence] = sentences(study([base()], overlaps=[TEXT]))
    assert sentence == (
        "The calibration text notes.txt (abababababab; behind base, v0, v1, v2, v3, v4 and 2 more) shares 13 consecutive words with "
        "1 of 1,221 items of csqa (8 words with 2, 1 too short to tell); 0 of 1,838 items of piqa (8 words with 0)."
    )


def test_a_study_that_reads_no_text_has_nothing_to_compare() -> None:
    nothing = study([base()], overlaps=[])
    assert sentences(nothing) == ["No step read calibration or training text, so there is nothing to compare the tasks with."]
    assert HEADING in render(nothing)


def test_a_record_in_which_nobody_looked_says_nothing() -> None:
    assert HEADING not in render(study([base()]))


def test_the_table_has_a_row_an_item() -> None:
    assert overlaps(study([base()], overlaps=[TEXT])).to_dict("records") == [
        {"role": "calibration", "source": "notes.txt", "task": "csqa", "item": "3", "words_13": True, "words_8": True},
        {"role": "calibration", "source": "notes.txt", "task": "csqa", "item": "5", "words_13": False, "words_8": True},
    ]


def test_studies_on_one_page_keep_their_texts() -> None:
    text = TEXT.model_copy(update={"variants": ["base"]})
    two = [study([base(bpb)], study=name, overlaps=[text]) for name, bpb in (("one", 0.9), ("two", 0.8))]
    together = merged(two).overlaps
    assert together is not None
    assert [found.variants for found in together] == [["one/base"], ["two/base"]]
    assert merged([two[0], study([base()], study="old")]).overlaps is None


def test_the_density_without_the_items_is_said_and_a_verdict_that_turns() -> None:
    one = quickstart().variants[1]
    assert one.density is not None
    assert one.density.params is not None
    without = one.density.params.model_copy(update={"value": 0.123})
    turning = Alternative(choice="overlap", setting="without 1 item", ratio=without, verdict="lowered", flips=True)
    compared = [row.model_copy(update={"robustness": [turning]}) for row in one.comparisons]
    density = one.density.model_copy(update={"without_overlap": without})
    changed = one.model_copy(update={"density": density, "comparisons": compared})
    *_, said = sentences(study([base(), changed], overlaps=[TEXT]))
    assert said.endswith(", and of 0.123 without the items that share 13 words. Its verdict against base turns.")
    *_, said = sentences(study([base(), changed.model_copy(update={"comparisons": one.comparisons})], overlaps=[TEXT]))
    assert said.endswith("that share 13 words.")
