"""Fidelity from stored answers: what differs from the parent's answers, against a direct computation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
from pyarrow.parquet import read_schema
from scipy.special import softmax
from scipy.stats import binomtest

from compresslab.evaluation.scores import AnswerConditions, AnsweredItem, read_details, summarise, write_items
from compresslab.records import Fidelity, ItemScores
from compresslab.studies.answers.fidelity import fidelity, repetition

OPTIONS = [" yes", " never", " a longer one", " 4"]
LENGTHS = dict(zip(OPTIONS, (1, 2, 4, 1), strict=True))


def chosen(task: str, logprobs: np.ndarray, golds: Sequence[int], names: Sequence[str] | None = None, question: str = "q") -> ItemScores:
    """The stored form of answers to multiple-choice items."""
    found = []
    for index, (row, gold) in enumerate(zip(logprobs.tolist(), golds, strict=True)):
        choice = int(np.argmax(row))
        requests = [(f"{question}{index}", option) for option in OPTIONS[: len(row)]]
        name = names[index] if names else str(index)
        found.append(AnsweredItem(name, requests, row, [gold], len(row), choice, float(choice == gold)))
    lengths = {pair: LENGTHS[pair[1]] for item in found for pair in item.requests}
    return summarise(task, "acc", found, AnswerConditions("tree", "as stored", False, frozenset(), lengths, {}))[1]


def written(
    task: str, texts: Sequence[str], correct: Sequence[float], tokens: Sequence[int] | None = None, cut: Sequence[bool] | None = None
) -> ItemScores:
    """The stored form of generated answers."""
    found = [
        AnsweredItem(str(index), [(f"q{index}", "{}")], [], [], 0, -1, right, generated=text)
        for index, (text, right) in enumerate(zip(texts, correct, strict=True))
    ]
    lengths = {item.requests[0]: number for item, number in zip(found, tokens or [], strict=False)}
    ends = {item.requests[0]: end for item, end in zip(found, cut or [], strict=False)}
    return summarise(task, "exact_match", found, AnswerConditions("shared", "as stored", False, frozenset(), lengths, {}, ends))[1]


def compared(folder: Path, parent: ItemScores, child: ItemScores) -> Fidelity:
    paths = folder / "parent.parquet", folder / "child.parquet"
    for path, items in zip(paths, (parent, child), strict=True):
        write_items(path, items)
    [found] = fidelity({"t": parent}, {"t": child}, {"t": paths})
    return found


def test_fidelity_is_what_a_direct_computation_gives_on_a_hundred_items(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    golds = draw.integers(4, size=100).tolist()
    before = -draw.exponential(8.0, size=(100, 4))
    after = np.minimum(before + draw.normal(0, 2.0, size=(100, 4)), 0.0)
    found = compared(tmp_path, chosen("t", before, golds), chosen("t", after, golds))

    divergences, changes, tokens, changed, lost, gained = [], [], [], 0, 0, 0
    for p_row, q_row, gold in zip(before, after, golds, strict=True):
        p, q = softmax(p_row), softmax(q_row)
        divergences.append(sum(p[k] * math.log(p[k] / q[k]) for k in range(4)))
        changes.append(q_row[gold] - p_row[gold])
        tokens.append([1, 2, 4, 1][gold])
        was, now = max(range(4), key=list(p_row).__getitem__), max(range(4), key=list(q_row).__getitem__)
        changed += was != now
        lost += was == gold != now
        gained += was != gold == now
    assert (found.items, found.left_out) == (100, 0)
    assert (found.changed, found.lost, found.gained) == (pytest.approx(changed / 100), lost, gained)
    assert lost != gained
    assert found.mcnemar == pytest.approx(binomtest(lost, lost + gained).pvalue)
    assert found.kl is not None
    assert found.kl.value == pytest.approx(mean(divergences), rel=1e-12)
    assert found.kl.stderr == pytest.approx(stdev(divergences) / 10, rel=1e-12)
    assert found.gold is not None
    assert found.gold.value == pytest.approx(sum(changes) / sum(tokens), rel=1e-12)
    left = [change - found.gold.value * number for change, number in zip(changes, tokens, strict=True)]
    assert found.gold.stderr == pytest.approx(stdev(left) / 10 / mean(tokens), rel=1e-12)


def test_the_same_answers_have_no_distance(tmp_path: Path) -> None:
    rows = np.array([[-1.0, -2.0], [-700.0, -1.0], [-3.0, -3.0]])
    found = compared(tmp_path, chosen("t", rows, [0, 1, 0]), chosen("t", rows, [0, 1, 0]))
    assert (found.changed, found.lost, found.gained, found.mcnemar) == (0.0, 0, 0, 1.0)
    assert found.kl is not None
    assert (found.kl.value, found.kl.stderr) == (0.0, 0.0)
    assert found.gold is not None
    assert found.gold.value == 0.0


def test_a_divergence_is_that_of_the_variant_from_its_parent_and_not_the_other_way_round(tmp_path: Path) -> None:
    before, after = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    found = compared(tmp_path, chosen("t", before, [0]), chosen("t", after, [0]))
    assert found.kl is not None
    assert found.kl.value == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))
    assert found.kl.stderr is None  # of one item


def test_items_that_were_not_asked_alike_do_not_count(tmp_path: Path) -> None:
    rows = np.array([[-1.0, -2.0], [-1.0, -2.0], [-1.0, -2.0]])
    parent = chosen("t", rows, [0, 0, 0], ["a", "b", "x"])
    child = chosen("t", rows[:, ::-1], [0, 0, 1], ["b", "a", "c"])
    found = fidelity({"t": parent}, {"t": child}, {})
    assert found == []  # the places of the items are in their prompts, so none is the same question
    child = chosen("t", rows[:, ::-1], [0, 1, 0], ["a", "b", "c"])
    found_one = compared(tmp_path, parent, child)
    assert (found_one.items, found_one.left_out, found_one.lost) == (1, 2, 1)


def test_another_tokenizer_has_no_difference_a_token(tmp_path: Path) -> None:
    rows = np.array([[-1.0, -2.0]])
    parent, child = chosen("t", rows, [1]), chosen("t", rows - 1, [1])
    assert child.details is not None
    detail = child.details[0].model_copy(update={"tokens": [1, 3]})
    found = compared(tmp_path, parent, child.model_copy(update={"details": [detail]}))
    assert found.gold is None
    assert found.kl is not None


def test_a_single_likelihood_has_no_answer_that_could_change(tmp_path: Path) -> None:
    """Of a word to predict only its likelihood is stored and whether it was the most likely one."""

    def word(logprob: float, right: float) -> ItemScores:
        item = AnsweredItem("0", [("q", " word")], [logprob], [0], 0, -1, right)
        return summarise("t", "acc", [item], AnswerConditions("tree", "as stored", False, frozenset(), {("q", " word"): 2}, {}))[1]

    found = compared(tmp_path, word(-1.0, 1.0), word(-4.0, 0.0))
    assert (found.changed, found.kl, found.lost, found.gained) == (None, None, 1, 0)
    assert found.gold is not None
    assert found.gold.value == pytest.approx(-1.5)


def test_generated_answers_are_compared_as_texts(tmp_path: Path) -> None:
    parent = written("t", ["it is 4", "so 5", "a b c d e"], [1, 0, 0], [3, 2, 5])
    child = written("t", ["it is 4", "so 6 6", "a b a b a b a b"], [1, 1, 0], [3, 3, 8])
    found = compared(tmp_path, parent, child)
    assert found.changed == pytest.approx(2 / 3)
    assert (found.lost, found.gained, found.kl, found.gold) == (0, 1, None, None)
    made = found.generated
    assert made is not None
    assert made.common == pytest.approx((7 + 3 + 4) / 3)
    assert (made.parent_length, made.length) == (pytest.approx((7 + 4 + 9) / 3), pytest.approx((7 + 6 + 15) / 3))
    assert (made.parent_tokens, made.tokens) == (pytest.approx(10 / 3), pytest.approx(14 / 3))
    # Of the parent's answers only the last has four words; of the child's "a b a b a b a b" five 4-grams are two different ones.
    assert (made.parent_repetition, made.repetition) == (0.0, pytest.approx(3 / 5))


def test_the_share_of_answers_that_were_cut_is_that_of_the_items_asked_alike(tmp_path: Path) -> None:
    parent = written("t", ["a", "b", "c"], [1, 0, 0], [3, 2, 5], [True, False, False])
    child = written("t", ["a", "b", "c"], [1, 0, 0], [3, 2, 5], [True, True, False])
    made = compared(tmp_path, parent, child).generated
    assert made is not None
    assert (made.parent_cut, made.cut) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_answers_of_a_store_from_before_are_read_and_how_they_ended_is_not_stored(tmp_path: Path) -> None:
    """Such a file has no column `cut`. One in which some answer is not known tells no share."""
    older = written("t", ["a", "b"], [1, 0], [3, 2])
    write_items(tmp_path / "older", older)
    assert "cut" not in read_schema(tmp_path / "older").names
    assert [detail.cut for detail in read_details(tmp_path / "older", [0, 1])] == [None, None]
    made = compared(tmp_path, older, written("t", ["a", "b"], [1, 0], [3, 2], [True])).generated
    assert made is not None
    assert (made.parent_cut, made.cut) == (None, None)
    newer = written("t", ["a", "b"], [1, 0], [3, 2], [True, False])
    made = compared(tmp_path, older, newer).generated
    assert made is not None
    assert (made.parent_cut, made.cut) == (None, 0.5)
    write_items(tmp_path / "newer", newer)
    assert [detail.cut for detail in read_details(tmp_path / "newer", [1, 0])] == [False, True]


def test_tokens_that_nobody_counted_are_missing(tmp_path: Path) -> None:
    found = compared(tmp_path, written("t", ["one"], [1]), written("t", ["two"], [0], [1]))
    assert found.generated is not None
    assert (found.generated.parent_tokens, found.generated.tokens, found.generated.repetition) == (None, 1.0, None)


@pytest.mark.parametrize(("text", "share"), [("", None), ("a b c", None), ("a b c d", 0.0), ("a a a a a", 0.5), ("a b c d a b c d", 0.2)])
def test_repetition_is_the_share_of_4_grams_that_were_there_before(text: str, share: float | None) -> None:
    assert repetition(text) == (share if share is None else pytest.approx(share))


def test_a_graded_metric_flips_nothing(tmp_path: Path) -> None:
    found = compared(tmp_path, written("t", ["one"], [0.3]), written("t", ["two"], [0.9]))
    assert (found.changed, found.lost, found.gained, found.mcnemar) == (1.0, None, None, None)


@pytest.mark.parametrize("left", ["no details", "damaged", "gone"])
def test_a_file_without_answers_leaves_out_what_it_does_not_tell(tmp_path: Path, left: str) -> None:
    """As `added_loss` does: the scores, which are read before, stand without it."""
    rows = np.array([[-1.0, -2.0], [-2.0, -1.0], [-1.0, -3.0]])
    parent, child = chosen("t", rows, [0, 0, 0]), chosen("t", rows[:, ::-1], [0, 0, 0])
    paths = tmp_path / "parent.parquet", tmp_path / "child.parquet"
    write_items(paths[0], parent)
    write_items(paths[1], child.model_copy(update={"details": None}))
    if left == "damaged":
        paths[1].write_bytes(b"damaged")
    elif left == "gone":
        paths[1].unlink()
    [found] = fidelity({"t": parent}, {"t": child}, {"t": paths})
    assert (found.items, found.changed, found.lost, found.gained) == (3, 1.0, 2, 1)
    assert (found.kl, found.gold, found.generated) == (None, None, None)


def test_texts_that_a_file_does_not_hold_are_no_unchanged_answers(tmp_path: Path) -> None:
    items = written("t", ["one"], [1])
    write_items(tmp_path / "items.parquet", items.model_copy(update={"details": None}))
    [found] = fidelity({"t": items}, {"t": items}, {"t": (tmp_path / "items.parquet",) * 2})
    assert (found.changed, found.generated) == (None, None)
