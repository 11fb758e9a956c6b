"""Which items share words with a text, by the convention of Brown et al. 2020."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Sequence

import pytest

from compresslab.evaluation import overlap
from compresslab.evaluation.overlap import FEWEST_WORDS, ItemText, TaskRows, overlapping, questions, words

LONG_QUESTION = "Which of these rocks forms when molten material cools slowly far below the surface of the planet"  # 17 words
OPTIONS = (" granite", " basalt")
NOTHING = TaskRows([], [], [])


def item(question: str = LONG_QUESTION, options: Sequence[str] = OPTIONS, gold: int = 0, name: str = "0", before: str = "") -> ItemText:
    return ItemText(name, f"{before}Question: {question}\nAnswer:", options, gold)


def found(text: str | Iterable[str], *items: ItemText) -> TaskRows:
    return overlapping({"t": items}, [text] if isinstance(text, str) else text)["t"]


def test_an_item_in_the_text_is_found_among_others() -> None:
    other = item("How many legs does a spider have that lives in the north of the country and eats", name="1")
    text = f"Some prose before. {LONG_QUESTION}? Answer: granite. And some prose after."
    assert found(text, other, item()) == TaskRows([1], [1], [])
    assert found("Some prose that has nothing of it.", other, item()) == NOTHING


def test_twelve_shared_words_are_too_few_for_13_and_enough_for_8() -> None:
    listed = LONG_QUESTION.split()
    assert found(" ".join(["then", *listed[2:14], "then"]), item()) == TaskRows([], [0], [])
    assert found(" ".join(["then", *listed[2:15], "then"]), item()) == TaskRows([0], [0], [])
    assert found(" ".join(["then", *listed[2:9], "then"]), item()) == NOTHING


def test_case_punctuation_line_ends_and_unicode_forms_do_not_hide_an_item() -> None:
    question = "Wie heißt die größte Stadt an der Mündung des Flusses, der durch Köln und Düsseldorf fließt"
    disguised = question.upper().replace(" ", " -- \n").replace("Ö", "O\u0308")
    assert found(disguised, item(question)).long == [0]
    assert words("ﬁve CAFE\u0301s, Straße_9 \uff28\uff12\uff2f") == ["five", "cafés", "strasse", "9", "h2o"], "full-width letters, too"


def test_scripts_without_spaces_count_characters() -> None:
    question = "世界上最高的山峰叫什么名字位于哪里"
    assert words("山峰 abc山") == ["山", "峰", "abc", "山"]
    assert found(f"我们知道{question[:14]}。", item(question)).long == [0]
    assert found(f"我们知道{question[:12]}。", item(question)) == TaskRows([], [0], [])


def test_a_short_item_overlaps_only_as_a_whole() -> None:
    short = item("What rock floats on water", (" pumice stone", " granite"))  # 7 words with the right answer
    assert found("What rock floats on water? Pumice stone.", short) == TaskRows([0], [0], [])
    assert found("Question: What rock floats on water? Answer: pumice stone", short) == TaskRows([0], [0], [])
    assert found("What rock floats on water? Granite.", short) == NOTHING
    assert found("Everyone knows what rock floats on water.", short) == NOTHING


def test_nothing_is_said_of_an_item_of_very_few_words() -> None:
    assert FEWEST_WORDS == 5
    assert found("What is it? Two", item("What is it", (" two",))) == TaskRows([], [], [0])


def test_an_ending_counts_with_the_words_before_it() -> None:
    start = ItemText("0", "The boy lands on the mat and then he gets up and", [" celebrates by flexing both of his arms", " runs away"], 0)
    assert found("and then he gets up and celebrates by flexing both of his arms", start).long == [0]
    assert found("on the mat and then he gets up and runs away home at once", start) == TaskRows([], [0], [])


@pytest.mark.parametrize("example", ["the same", "their own"])
def test_the_examples_of_a_prompt_are_no_part_of_the_item(example: str) -> None:
    shot = "Question: Name {} the well known colour of the sky on a clear day in the middle of June?\nAnswer: blue\n\n"
    shots = [shot.format(number if example == "their own" else "please") for number in "abc"]
    asked = [f"{LONG_QUESTION}, number {number}" for number in "abc"]
    prompts = zip("abc", asked, shots, strict=True)
    items = [item(question, name=number, before=f"Answer well.\n\n{before}") for number, question, before in prompts]
    assert questions(items) == [f" {question}\nAnswer:" for question in asked]
    assert found(" ".join(shots), *items) == NOTHING
    assert found(shots[0], *items) == NOTHING


def test_each_subject_has_its_own_examples() -> None:
    intro = "The following are multiple choice questions about {0}.\n\nQuestion: What does {0} study above all?\nAnswer: {0}\n\n"
    items = [
        item(f"{LONG_QUESTION} {i}", name=f"{subject}/{i}", before=intro.format(subject)) for subject in ("law", "art") for i in range(2)
    ]
    assert questions(items) == [f" {LONG_QUESTION} {i}\nAnswer:" for _ in range(2) for i in range(2)]


def test_no_match_reaches_from_one_document_into_the_next() -> None:
    listed = LONG_QUESTION.split()
    halves = [" ".join(listed[:9]), " ".join(listed[9:])]
    assert found(halves, item()) == TaskRows([], [0], [])
    assert found(" ".join(halves), item()).long == [0]


def test_a_match_across_the_pieces_of_a_document_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for piece in range(10, 60, 3):  # no word is longer
        monkeypatch.setattr(overlap, "PIECE", piece)
        assert found(f"Before it. {LONG_QUESTION}. After it.", item()) == TaskRows([0], [0], [])


def test_memory_does_not_grow_with_the_text() -> None:
    document = "some words of a long text that holds nothing " * 5_000 + LONG_QUESTION
    peaks = []
    for copies in (1, 8):
        tracemalloc.start()
        assert found((document for _ in range(copies)), item()).long == [0]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_without_items_or_text_nothing_is_found() -> None:
    assert overlapping({"t": []}, ["text"]) == {"t": NOTHING}
    assert found("", item()) == NOTHING
    assert found([], item()) == NOTHING
