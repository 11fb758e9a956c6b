"""The noise floors of a study's variants, against a direct computation on the stored answers."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from report import studies
from scipy.special import softmax

from compresslab.evaluation.scores import AnswerConditions, AnsweredItem, summarise, write_items
from compresslab.records import ItemScores, NoiseFloor, StepRecord, VariantRecord
from compresslab.studies.answers.noise import Scored, noise_floors
from compresslab.studies.answers.stored import read_answers

TASKS, ITEMS, OPTIONS = ("t", "u"), 60, [" yes", " never", " it is"]


def answered(task: str, seed: int, apart: float, left_out: int | None = None) -> tuple[ItemScores, np.ndarray, list[int]]:
    """Answers that differ from those of seed 0 by `apart`, without one item if one is left out."""
    shared, own = np.random.default_rng(len(task)), np.random.default_rng([seed, ord(task)])
    golds = shared.integers(3, size=ITEMS).tolist()
    rows = np.minimum(-shared.exponential(4.0, size=(ITEMS, 3)) + own.normal(0, apart, size=(ITEMS, 3)), 0.0)
    items = []
    for index in (index for index in range(ITEMS) if index != left_out):
        requests, row = [(f"q{index}", option) for option in OPTIONS], rows[index].tolist()
        choice = int(np.argmax(row))
        items.append(AnsweredItem(str(index), requests, row, [golds[index]], 3, choice, float(choice == golds[index])))
    conditions = AnswerConditions("tree", "as stored", False, frozenset(), {pair: 1 for item in items for pair in item.requests}, {})
    return summarise(task, "acc", items, conditions)[1], rows, golds


def variant(name: str, parent: str, replicate_of: str = "", root: str = "base") -> VariantRecord:
    steps: list[StepRecord] = []
    return VariantRecord(name=name, parent=parent, root=root, replicate_of=replicate_of, steps=steps)


def scored(folder: Path, models: dict[str, tuple[int, float]], left_out: dict[str, int] | None = None) -> Scored:
    items = {
        name: {task: answered(task, seed, apart, (left_out or {}).get(name))[0] for task in TASKS} for name, (seed, apart) in models.items()
    }
    files: dict[str, dict[str, Path]] = {}
    for name, tasks in items.items():
        files[name] = {task: folder / f"{name}-{task}.parquet" for task in tasks}
        for task, path in files[name].items():
            write_items(path, tasks[task])
    return Scored(items, files)


MODELS = {"base": (0, 0.1), "pruned": (1, 3.0), "healed": (2, 1.0), "healed~2": (3, 1.0), "healed~3": (4, 1.0)}
VARIANTS = [variant("base", ""), variant("pruned", "base"), variant("healed", "pruned")]
VARIANTS += [variant(name, "pruned", "healed") for name in ("healed~2", "healed~3")]
HEALED = ("healed", "healed~2", "healed~3")


def floor_of(found: list[NoiseFloor], against: str, quantity: str, task: str = "") -> NoiseFloor:
    [one] = [one for one in found if (one.against, one.quantity, one.task) == (against, quantity, task)]
    return one


def test_differences_are_what_a_direct_computation_gives(tmp_path: Path) -> None:
    answers = scored(tmp_path, MODELS)
    found = noise_floors(VARIANTS, answers, read_answers)
    assert list(found) == ["healed"]
    differences = found["healed"].differences
    assert {(one.against, one.relation) for one in differences} == {("pruned", "parent"), ("base", "root")}
    for column, quantity in (("correct", "accuracy"), ("bits_per_byte", "bits per byte")):
        by_task = {name: {task: mean(getattr(answers.items[name][task], column)) for task in TASKS} for name in MODELS}
        for against in ("pruned", "base"):
            one = floor_of(differences, against, quantity, "u")
            assert one.values == pytest.approx([by_task[name]["u"] for name in HEALED])
            assert one.others == pytest.approx([by_task[against]["u"]])
            both = floor_of(differences, against, quantity)
            assert both.items == 2 * ITEMS
            values = [mean(by_task[name].values()) for name in HEALED]
            assert both.effect == pytest.approx(mean(values) - mean(by_task[against].values()))
            assert both.twice is not None
            assert both.twice.value == pytest.approx(math.sqrt(2) * np.std(values, ddof=1))


def test_divergences_between_replicates_are_what_a_direct_computation_gives(tmp_path: Path) -> None:
    [noise] = noise_floors(VARIANTS, scored(tmp_path, MODELS), read_answers).values()
    rows = {name: answered("t", *MODELS[name])[1] for name in MODELS}

    def divergence(one: str, other: str) -> float:
        p, q = softmax(rows[one], axis=1), softmax(rows[other], axis=1)
        return float((p * np.log(p / q)).sum(axis=1).mean())

    [kl] = [one for one in noise.divergences if (one.quantity, one.task) == ("KL of options", "t")]
    assert kl.to_parent == pytest.approx([divergence("pruned", name) for name in HEALED])
    assert kl.between == pytest.approx([divergence(*names) for names in itertools.permutations(HEALED, 2)])
    assert kl.larger
    assert kl.chance == 0.25
    [changed] = [one for one in noise.divergences if (one.quantity, one.task) == ("answers changed", "t")]
    chosen = {name: rows[name].argmax(axis=1) for name in rows}
    assert changed.to_parent == pytest.approx([float((chosen["pruned"] != chosen[name]).mean()) for name in HEALED])


def test_a_parent_that_is_one_more_run_is_within_the_noise(tmp_path: Path) -> None:
    [noise] = noise_floors(VARIANTS, scored(tmp_path, {**MODELS, "pruned": (9, 1.0)}), read_answers).values()
    assert floor_of(noise.differences, "pruned", "bits per byte").larger is False
    assert not any(one.larger for one in noise.divergences)


def test_only_items_that_all_were_asked_alike_count(tmp_path: Path) -> None:
    answers = scored(tmp_path, MODELS, {"healed~3": 7, "pruned": 8})
    [noise] = noise_floors(VARIANTS, answers, read_answers).values()
    one = floor_of(noise.differences, "pruned", "accuracy", "t")
    assert one.items == ITEMS - 2
    kept = [index for index in range(ITEMS) if index not in (7, 8)]
    assert one.values[0] == pytest.approx(mean(answers.items["healed"]["t"].correct[index] for index in kept))
    assert floor_of(noise.differences, "base", "accuracy", "t").items == ITEMS - 1


def test_siblings_are_compared_if_both_have_replicates_and_never_borrow(tmp_path: Path) -> None:
    models = {**MODELS, "other": (5, 1.0), "other~2": (6, 1.0), "plain": (7, 1.0)}
    more = [variant("other", "pruned"), variant("other~2", "pruned", "other"), variant("plain", "pruned")]
    found = noise_floors([*VARIANTS, *more], scored(tmp_path, models), read_answers)
    assert list(found) == ["healed", "other"]
    siblings = [one for one in found["healed"].differences if one.relation == "sibling"]
    assert {one.against for one in siblings} == {"other"}
    assert (siblings[0].degrees, len(siblings[0].values), len(siblings[0].others)) == (3, 3, 2)
    assert not [one for one in found["other"].differences if one.relation == "sibling"], "a pair is told once"


def test_a_step_after_the_replicated_one_has_no_floor_against_its_parent(tmp_path: Path) -> None:
    models = {**MODELS, "packed": (5, 1.0), "packed~2": (6, 1.0)}
    more = [variant("packed", "healed"), variant("packed~2", "healed~2", "packed")]
    found = noise_floors([*VARIANTS, *more], scored(tmp_path, models), read_answers)
    assert {one.relation for one in found["packed"].differences} == {"root"}
    assert found["packed"].divergences == []


def test_a_variant_with_one_replicate_that_gave_scores_has_no_floor(tmp_path: Path) -> None:
    models = {name: MODELS[name] for name in ("base", "pruned", "healed")}
    assert noise_floors(VARIANTS, scored(tmp_path, models), read_answers) == {}


def test_densities_of_replicates_are_those_of_the_comparison(tmp_path: Path) -> None:
    comparison = studies.quickstart().variants[1].comparisons[0]
    ratios = {"against": "pruned", "relation": "parent", "ratio_of_each": [0.9, 0.95, 1.0]}
    healed = VARIANTS[2].model_copy(update={"comparisons": [comparison.model_copy(update=ratios)]})
    [noise] = noise_floors([*VARIANTS[:2], healed, *VARIANTS[3:]], scored(tmp_path, MODELS), read_answers).values()
    one = floor_of(noise.differences, "pruned", "ln density")
    assert one.effect == pytest.approx(mean(map(math.log, [0.9, 0.95, 1.0])))
    assert one.others == [0.0]
    assert one.larger is False
