"""Which items a page shows as lost, and that they are told as both models answered them."""

from __future__ import annotations

from pathlib import Path

import pytest

from compresslab.errors import RunFailed
from compresslab.evaluation.scores import write_items
from compresslab.records import ItemDetail, ItemScores
from compresslab.studies.answers.lost_items import MAX_ITEMS, PROMPT_CHARACTERS, lost_items


def answers(task: str, rows: list[tuple[str, float, float]], mark: str, bits: bool = True) -> ItemScores:
    """Items of (id, bits per byte, correct)."""
    same = {"prompt_hash": "h", "options": [" a", " b"], "generated": None, "logprobs": [-1.0, -2.0], "tokens": [1, 1], "bytes": [1, 1]}
    details = [
        ItemDetail.model_validate({**same, "prompt": f"{'x' * PROMPT_CHARACTERS}{name}?", "metrics": {"acc": correct}})
        for name, _, correct in rows
    ]
    return ItemScores(
        task=task,
        item=[name for name, _, _ in rows],
        bits_per_byte=[value for _, value, _ in rows] if bits else None,
        correct=[correct for _, _, correct in rows],
        choice=[0 if mark == "parent" else 1] * len(rows),
        gold=[0] * len(rows),
        details=details,
    )


def files(folder: Path, parent: dict[str, ItemScores], child: dict[str, ItemScores]) -> dict[str, tuple[Path, Path]]:
    found = {}
    for task in child:
        paths = folder / f"{task}-parent.parquet", folder / f"{task}-child.parquet"
        write_items(paths[0], parent[task])
        write_items(paths[1], child[task])
        found[task] = paths
    return found


def test_what_was_right_before_comes_first_and_then_what_lost_most(tmp_path: Path) -> None:
    parent = {"t": answers("t", [("a", 1, 1), ("b", 1, 0), ("c", 1, 1), ("d", 2, 1)], "parent")}
    child = {"t": answers("t", [("d", 1, 1), ("c", 1.5, 0), ("b", 9, 0), ("a", 3, 0)], "child")}  # in another order
    found = lost_items(parent, child, files(tmp_path, parent, child))
    assert [(one.item, one.flipped, one.bits) for one in found] == [("a", True, 2), ("c", True, 0.5), ("b", False, 8)]
    assert found[0].prompt.endswith("a?")
    assert (len(found[0].prompt), found[0].cut) == (PROMPT_CHARACTERS, True)
    assert (found[0].parent_choice, found[0].child_choice, found[0].options) == (0, 1, [" a", " b"])


def test_a_metric_between_zero_and_one_flips_nothing(tmp_path: Path) -> None:
    parent = {"t": answers("t", [("a", 1, 0.3), ("b", 1, 0.9)], "parent")}
    child = {"t": answers("t", [("a", 0.5, 0.29), ("b", 9, 0.1)], "child")}
    [found] = lost_items(parent, child, files(tmp_path, parent, child))
    assert (found.item, found.flipped) == ("b", False)


def test_only_the_worst_few_of_all_tasks_are_told(tmp_path: Path) -> None:
    parent = {task: answers(task, [(str(i), 1, 1) for i in range(9)], "parent") for task in ("t", "u")}
    child = {task: answers(task, [(str(i), 1 + i + shift, 0) for i in range(9)], "child") for task, shift in (("t", 0), ("u", 0.5))}
    found = lost_items(parent, child, files(tmp_path, parent, child))
    assert len(found) == MAX_ITEMS
    assert [(one.task, one.item) for one in found] == [("u", "8"), ("t", "8"), ("u", "7"), ("t", "7")]


def test_items_without_a_gold_continuation_count_by_right_and_wrong_alone(tmp_path: Path) -> None:
    parent = {"t": answers("t", [("a", 0, 1), ("b", 0, 1)], "parent", bits=False)}
    child = {"t": answers("t", [("a", 0, 1), ("b", 0, 0)], "child", bits=False)}
    [found] = lost_items(parent, child, files(tmp_path, parent, child))
    assert (found.item, found.bits) == ("b", None)


def test_a_file_without_details_is_named(tmp_path: Path) -> None:
    parent = {"t": answers("t", [("a", 1, 1)], "parent")}
    child = {"t": answers("t", [("a", 2, 0)], "child")}
    paths = files(tmp_path, parent, child)
    write_items(paths["t"][1], child["t"].model_copy(update={"details": None}))
    with pytest.raises(RunFailed, match=r"t-child\.parquet does not hold the items' prompts"):
        lost_items(parent, child, paths)


def test_items_that_were_other_questions_are_not_put_side_by_side() -> None:
    before, after = answers("t", [("a", 1, 1)], "parent"), answers("t", [("a", 3, 0)], "child")
    before, after = (items.model_copy(update={"prompt_hash": [hashed]}) for items, hashed in ((before, "x"), (after, "y")))
    assert lost_items({"t": before}, {"t": after}, {}) == []
