"""The learning-rate schedule."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compresslab.algorithms.schedule import warmup_stable_decay


def curve(steps: int, warmup: float, decay: float) -> list[float]:
    return [warmup_stable_decay(step, steps, warmup, decay) for step in range(steps)]


def test_it_rises_stays_and_falls_in_straight_lines():
    assert curve(10, 0.2, 0.4) == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_without_warmup_and_decay_it_is_constant():
    assert curve(5, 0, 0) == [1.0] * 5


def test_a_single_step_is_not_wasted():
    assert curve(1, 0.1, 0.3) == [1.0]


@given(steps=st.integers(1, 200), warmup=st.floats(0, 0.5), decay=st.floats(0, 0.5))
def test_it_rises_before_it_falls_and_every_step_learns_something(steps: int, warmup: float, decay: float):
    factors = curve(steps, warmup, decay)
    assert all(0 < factor <= 1 for factor in factors)
    turns = [later > earlier for earlier, later in pairwise(factors) if later != pytest.approx(earlier)]
    assert turns == sorted(turns, reverse=True), "a rise after a fall"
