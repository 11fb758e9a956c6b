from __future__ import annotations

import math
from pathlib import Path

import pytest

from compresslab.errors import RunFailed
from compresslab.evaluation import scores
from compresslab.evaluation.scores import AnswerConditions, AnsweredItem
from compresslab.records import ItemScores

HOW = AnswerConditions("tree", "as stored", False, frozenset({("long", " a")}), {("long", " a"): 1}, {"dtype": "float32", "backend": "cpu"})
ITEMS = [
    AnsweredItem("0", [("q", " abc"), ("q", " de")], [-3 * math.log(2), -8 * math.log(2)], [0], 2, 0, 1.0),
    AnsweredItem("1", [("long", " a"), ("r", " bb")], [-2 * math.log(2), -4 * math.log(2)], [1], 2, 0, 0.0),
]


def test_bits_per_byte_counts_utf8_bytes_without_the_leading_space() -> None:
    assert scores.bits_per_byte(-6 * math.log(2), " abc") == pytest.approx(2.0)
    assert scores.bits_per_byte(-6 * math.log(2), "abc") == pytest.approx(2.0)
    assert scores.bits_per_byte(-6 * math.log(2), " é北") == pytest.approx(6 / 5)
    assert scores.utf8_bytes("  ab") == 3  # one leading space, not all


def test_length_normalised_accuracy_divides_by_characters_not_bytes() -> None:
    assert scores.characters(" é北") == 2
    # by characters the second option is the better one, by bytes the first
    options = [" ab", " éé"]
    assert scores.choose([-4.0, -3.0], [scores.characters(option) for option in options]) == 1
    assert scores.choose([-2.0, -3.0], [scores.utf8_bytes(option) for option in options]) == 1
    assert scores.choose([-2.0, -3.0], [scores.characters(option) for option in options]) == 0


def test_means_and_standard_errors_are_over_items() -> None:
    score, items = scores.summarise("t", "acc_per_char", ITEMS, HOW)
    assert items.bits_per_byte == pytest.approx([1.0, 2.0])
    assert (score.items, score.bits_per_byte, score.bits_per_byte_stderr) == (2, pytest.approx(1.5), pytest.approx(0.5))
    assert (score.accuracy, score.accuracy_stderr, score.chance) == (0.5, pytest.approx(0.5), 0.5)
    assert (items.correct, items.choice, items.gold) == ([1.0, 0.0], [0, 0], [0, 1])
    assert (score.engine, score.truncated, score.bos) == ("tree", 1, False)


def test_a_task_without_gold_continuations_has_no_bits_per_byte() -> None:
    generated = [AnsweredItem("0", [("q", "{}")], [], [], 0, -1, 1.0)]
    score, items = scores.summarise("t", "exact_match", generated, HOW)
    assert score.bits_per_byte is score.bits_per_byte_stderr is score.chance is items.bits_per_byte is None
    assert (items.choice, items.gold, score.accuracy_stderr) == ([-1], [-1], 0.0)


def test_the_hash_of_the_prompts_tells_other_prompts() -> None:
    other = [ITEMS[0], AnsweredItem("1", [("long", " a"), ("r", " bc")], [-1.0, -2.0], [1], 2, 0, 0.0)]
    assert scores.prompts_hash(ITEMS) != scores.prompts_hash(other)
    again = [AnsweredItem(item.id, item.requests, [0.0, 0.0], item.gold, 2, 1, 0.0) for item in ITEMS]
    assert scores.prompts_hash(ITEMS) == scores.prompts_hash(again)


def test_log_likelihoods_that_are_not_finite_are_named() -> None:
    broken = [ITEMS[0], AnsweredItem("17", [("q", " a"), ("q", " b")], [math.nan, -1.0], [0], 2, 0, 0.0)]
    with pytest.raises(RunFailed, match=r"t: the log-likelihoods of 1 of 2 items are not finite \(the first is item 17\)"):
        scores.summarise("t", "acc", broken, HOW)


@pytest.mark.parametrize("bits", [[0.1 + 0.2, 1 / 3], None])
def test_items_survive_parquet_and_the_same_items_give_the_same_bytes(tmp_path: Path, bits: list[float] | None) -> None:
    items = ItemScores(task="arc_easy", item=["0", "a/1"], bits_per_byte=bits, correct=[1.0, 0.25], choice=[2, -1], gold=[0, -1])
    scores.write_items(tmp_path / "one.parquet", items)
    scores.write_items(tmp_path / "two.parquet", items)
    assert scores.read_items(tmp_path / "one.parquet") == items
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_a_file_that_holds_no_items_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(RunFailed, match=r"broken\.parquet does not hold per-item results"):
        scores.read_items(tmp_path / "broken.parquet")


def test_single_items_are_read_back_with_all_that_is_known_of_them(tmp_path: Path) -> None:
    _, items = scores.summarise("t", "acc_per_char", ITEMS, HOW)
    scores.write_items(tmp_path / "items.parquet", items)
    assert items.details is not None
    assert scores.read_details(tmp_path / "items.parquet", [1, 0]) == [items.details[1], items.details[0]]
    with pytest.raises(RunFailed, match="does not hold the items' prompts"):
        scores.read_details(tmp_path / "items.parquet", [7])
