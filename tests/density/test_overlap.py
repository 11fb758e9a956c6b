"""What a verdict is without the items that are in the text behind a variant."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest

from compresslab.density import Measured, Reference, assess
from compresslab.density.overlap import leave_out_overlaps
from compresslab.recipe.schema import DensityConfig
from compresslab.records import Alternative, Comparison, Density, ItemScores, Shape, Size, TaskOverlap, TextOverlap

CONFIG = DensityConfig(resamples=300)
REFERENCE = Reference.load("olmo-ladder")
SHAPE = Shape(architecture="llama", layers=30, hidden=576, intermediate=1536, attention_width=576, key_value_width=192, vocabulary=49152)
ITEMS = 400


def measured(name: str, loss: float, *, known: int = 0, gain: float = 1.0, parent: str = "base") -> Measured:
    """A variant with a mean loss on arc_easy; of the first `known` items it knows the answers, so their loss is divided by `gain`."""
    rng = np.random.default_rng([7, len(name)])
    hard = np.random.default_rng(0).lognormal(-0.02, 0.2, ITEMS) * (1 + rng.normal(0, 0.02, ITEMS))
    bits = loss * hard
    bits[:known] /= gain
    items = ItemScores(
        task="arc_easy",
        item=[f"q{index}" for index in range(ITEMS)],
        bits_per_byte=bits.tolist(),
        correct=(np.arange(ITEMS) % 2).astype(float).tolist(),
        choice=[0] * ITEMS,
        gold=[0] * ITEMS,
        logprob=(-bits * math.log(2)).tolist(),
        prompt_hash=[f"h{index}" for index in range(ITEMS)],
    )
    size = Size(parameters=6 * 10**8, counted=6 * 10**8, active=6 * 10**8, nonzero=6 * 10**8, stored_bytes=12 * 10**8, effective_bits=16.0)
    return Measured(name=name, parent=parent, root="base", size=size, shape=SHAPE, items={"arc_easy": items}, runs=["base"])


def text(variants: list[str], words_13: range, words_8: range | None = None) -> TextOverlap:
    task = TaskOverlap(
        task="arc_easy",
        items=ITEMS,
        words_13=[f"q{index}" for index in words_13],
        words_8=[f"q{index}" for index in words_8 or words_13],
    )
    return TextOverlap(role="training", source="leak.txt", sha256="0" * 64, variants=variants, tasks=[task])


LOSS = REFERENCE.predict("arc_easy", 6e8, 200 * 6e8)[0]
assert LOSS is not None
BASE = measured("base", LOSS, parent="")


def judged(child: Measured, overlaps: list[TextOverlap]) -> tuple[Density, Comparison]:
    variants = [BASE, child]
    density, [comparison] = leave_out_overlaps(assess(variants, CONFIG, []), variants, overlaps, CONFIG)["child"]
    return density, comparison


def rows(comparison: Comparison) -> list[Alternative]:
    return [row for row in comparison.robustness if row.choice == "overlap"]


def test_a_verdict_that_rests_on_items_in_the_training_text_is_flagged() -> None:
    child = measured("child", LOSS * 1.05, known=60, gain=4.0)
    _, plain = judged(child, [])
    density, comparison = judged(child, [text(["child"], range(60))])
    assert (plain.verdict, comparison.verdict) == ("raised", "raised")
    [long, short] = rows(comparison)
    assert long.setting == "without 60 items that share 13 words"
    assert short.setting == "without 60 items that share 8 words"
    assert (long.verdict, long.flips, comparison.fragile) == ("lowered", True, True)
    assert density.without_overlap is not None
    assert density.params is not None
    assert density.without_overlap.value < density.params.value


def test_the_row_is_the_study_without_those_items() -> None:
    child = measured("child", LOSS * 1.05)
    density, comparison = judged(child, [text(["child"], range(30), range(50))])
    for row, count in zip(rows(comparison), (30, 50), strict=True):
        assert row.setting.startswith(f"without {count} items")
        kept = [
            variant.model_copy(
                update={
                    "items": {
                        "arc_easy": variant.items["arc_easy"].model_copy(
                            update={
                                name: getattr(variant.items["arc_easy"], name)[count:]
                                for name in ("item", "bits_per_byte", "correct", "choice", "gold", "logprob", "prompt_hash")
                            }
                        )
                    }
                }
            )
            for variant in (BASE, child)
        ]
        again = assess(kept, CONFIG, [])["child"]
        assert row.ratio == again[1][0].ratio
        assert (density.without_overlap == again[0].params) == (count == 30), "of 13 words"


@pytest.mark.parametrize("overlaps", [[], [text(["child"], range(0))], [text(["other"], range(60))]])
def test_without_overlap_a_comparison_stays_as_it_is(overlaps: list[TextOverlap]) -> None:
    child = measured("child", LOSS * 1.05)
    assert judged(child, overlaps) == judged(child, [])
    assert judged(child, overlaps)[0].without_overlap is None


def test_a_text_behind_the_parent_counts() -> None:
    child = measured("child", LOSS * 1.05)
    assert len(rows(judged(child, [text(["base"], range(60))])[1])) == 2


@pytest.mark.parametrize("left", [0, 5])
def test_a_task_that_is_in_the_text_as_a_whole_gives_no_ratio(left: Literal[0, 5]) -> None:
    child = measured("child", LOSS * 1.05)
    density, comparison = judged(child, [text(["child"], range(ITEMS - left))])
    assert [(row.ratio, row.reason, row.flips) for row in rows(comparison)] == [(None, "too few items are left", False)] * 2
    assert density.without_overlap is None
