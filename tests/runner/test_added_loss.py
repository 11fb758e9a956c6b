"""What a step adds to the loss of the right answers, in nats a token."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from compresslab.errors import RunFailed
from compresslab.evaluation.scores import write_items
from compresslab.records import ItemDetail, ItemScores
from compresslab.studies.added_loss import added_loss


def items(logprobs: list[float], lengths: list[int], names: str = "abc") -> ItemScores:
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
    assert added.value == pytest.approx(0.5)
    assert added.high - added.value == pytest.approx(1.96 * math.sqrt(0.75) / 6)


def test_items_that_the_parent_was_not_asked_do_not_count(tmp_path: Path) -> None:
    parent, child = items([-1.0, -2.0, -3.0], [1, 2, 3], "abx"), items([-2.0, -2.5, -9.5], [1, 2, 3])
    write_items(tmp_path / "items.parquet", child)
    added = added_loss({"t": parent}, {"t": child}, {"t": tmp_path / "items.parquet"})
    assert added is not None
    assert added.value == pytest.approx(0.5)


def test_answers_without_a_loss_give_none(tmp_path: Path) -> None:
    generated = items([-1.0, -2.0, -3.0], [1, 2, 3]).model_copy(update={"logprob": None})
    assert added_loss({"t": generated}, {"t": generated}, {"t": tmp_path / "items.parquet"}) is None
    assert added_loss({}, {"t": items([-1.0, -2.0, -3.0], [1, 2, 3])}, {"t": tmp_path / "items.parquet"}) is None


def test_items_without_lengths_are_one_clear_error(tmp_path: Path) -> None:
    parent = items([-1.0, -2.0, -3.0], [1, 2, 3])
    write_items(tmp_path / "items.parquet", parent.model_copy(update={"details": None}))
    with pytest.raises(RunFailed, match="does not hold the lengths of the answers"):
        added_loss({"t": parent}, {"t": parent}, {"t": tmp_path / "items.parquet"})
