"""What a step adds to the loss of the right answers, in nats a token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from compresslab.evaluation.scores import write_items
from compresslab.records import ItemDetail, ItemScores
from compresslab.studies.answers.added_loss import added_loss


def items(logprobs: list[float], lengths: list[int], names: Sequence[str] = "abc") -> ItemScores:
    details = [
        ItemDetail(
            prompt="q",
            prompt_hash="h",
            options=["x", "y"],
            generated=None,
            logprobs=[-9.0, one],
            tokens=[7, length],
            bytes=[1, 1],
            metrics={},
        )
        for one, length in zip(logprobs, lengths, strict=True)
    ]
    return ItemScores(
        task="t", item=list(names), bits_per_byte=[1.0] * len(logprobs), correct=[1.0] * len(logprobs), choice=[1] * len(logprobs),
        gold=[1] * len(logprobs), logprob=logprobs, prompt_hash=["h"] * len(logprobs), details=details,
    )  # fmt: skip


def test_the_loss_added_is_a_ratio_of_sums_over_the_tokens_of_the_right_answers(tmp_path: Path) -> None:
    parent, child = items([-1.0, -2.0, -3.0], [1, 2, 3]), items([-2.0, -2.5, -4.5], [1, 2, 3])
    write_items(tmp_path / "items.parquet", child)
    added = added_loss({"t": parent}, {"t": child}, {"t": tmp_path / "items.parquet"})
    assert added is not None
    # By hand: (1 + 0.5 + 1.5) / 6 = 0.5; what is left of each item is 0.5, -0.5 and 0, so the error is sqrt(0.5 * 3 / 2) / 6.
    assert added.loss.value == pytest.approx(0.5)
    assert added.loss.high - added.loss.value == pytest.approx(4.3027 * math.sqrt(0.75) / 6, rel=1e-4)  # t of 2 degrees of freedom
    assert added.left_out == ()


def test_items_of_one_group_are_no_sample_of_their_own(tmp_path: Path) -> None:
    """Twelve groups of three equal items tell as much as twelve items."""
    names, losses = [f"g{index}/{item}" for index in range(12) for item in range(3)], [-1.0 - index % 4 for index in range(12)]
    one = items([-1.0] * 12, [1] * 12, names[::3]), items(losses, [1] * 12, names[::3])
    three = items([-1.0] * 36, [1] * 36, names), items([loss for loss in losses for _ in range(3)], [1] * 36, names)
    found = []
    for number, (parent, child) in enumerate((one, three)):
        write_items(tmp_path / f"{number}.parquet", child)
        found.append(added_loss({"t": parent}, {"t": child}, {"t": tmp_path / f"{number}.parquet"}))
    assert found[0] is not None
    assert found[1] is not None
    assert (found[1].loss.low, found[1].loss.high) == pytest.approx((found[0].loss.low, found[0].loss.high))


def test_tasks_have_the_degrees_of_freedom_of_those_that_err(tmp_path: Path) -> None:
    """A hundred items without any error beside three that differ do not make the three a large sample."""
    few = items([-1.0, -2.0, -3.0], [1, 2, 3]), items([-2.0, -2.5, -4.5], [1, 2, 3])
    many = items([-1.0] * 100, [2] * 100, [str(n) for n in range(100)]), items([-2.0] * 100, [2] * 100, [str(n) for n in range(100)])
    for name, (_, child) in (("few", few), ("many", many)):
        write_items(tmp_path / name, child)
    added = added_loss({"f": few[0], "m": many[0]}, {"f": few[1], "m": many[1]}, {"f": tmp_path / "few", "m": tmp_path / "many"})
    assert added is not None
    assert added.loss.value == pytest.approx(0.5)
    assert added.loss.high - added.loss.value == pytest.approx(4.3027 * math.sqrt(0.75) / 206, rel=1e-4)


def test_items_that_the_parent_was_not_asked_do_not_count(tmp_path: Path) -> None:
    parent, child = items([-1.0, -2.0, -3.0], [1, 2, 3], "abx"), items([-2.0, -2.5, -9.5], [1, 2, 3])
    write_items(tmp_path / "items.parquet", child)
    added = added_loss({"t": parent}, {"t": child}, {"t": tmp_path / "items.parquet"})
    assert added is not None
    assert added.loss.value == pytest.approx(0.5)


def test_answers_without_a_loss_give_none(tmp_path: Path) -> None:
    generated = items([-1.0, -2.0, -3.0], [1, 2, 3]).model_copy(update={"logprob": None})
    assert added_loss({"t": generated}, {"t": generated}, {"t": tmp_path / "items.parquet"}) is None
    assert added_loss({}, {"t": items([-1.0, -2.0, -3.0], [1, 2, 3])}, {"t": tmp_path / "items.parquet"}) is None


def test_tasks_without_lengths_of_answers_are_left_out_and_named(tmp_path: Path) -> None:
    parent, child = items([-1.0, -2.0, -3.0], [1, 2, 3]), items([-2.0, -2.5, -4.5], [1, 2, 3])
    write_items(tmp_path / "lengths", child)
    write_items(tmp_path / "none", child.model_copy(update={"details": None}))
    (tmp_path / "damaged").write_bytes(b"damaged")
    files = {name: tmp_path / name for name in ("lengths", "none", "damaged", "gone")}
    added = added_loss(dict.fromkeys(files, parent), dict.fromkeys(files, child), files)
    assert added is not None
    assert added.loss.value == pytest.approx(0.5)
    assert added.left_out == ("none", "damaged", "gone")
    assert added_loss({"none": parent}, {"none": child}, files) is None
