"""The learning-rate schedule."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compresslab.algorithms.schedule import warmup_cosine, warmup_stable_decay


def curve(steps: int, warmup: float, decay: float) -> list[float]:
    return [warmup_stable_decay(step, steps, warmup, decay) for step in range(steps)]


def test_it_rises_stays_and_falls_in_straight_lines():
    assert curve(10, 0.2, 0.4) == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_without_warmup_and_decay_it_is_constant():
    assert curve(5, 0, 0) == [1.0] * 5


def test_a_single_step_is_not_wasted():
    assert curve(1, 0.1, 0.3) == [1.0]


def test_the_cosine_is_half_way_down_in_the_middle_and_nearly_0_at_the_end():
    falling = [warmup_cosine(step, 100, 0.0) for step in range(100)]
    assert falling[0] == 1
    assert falling[50] == pytest.approx(0.5)
    assert falling[25] == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert 0 < falling[99] < 1e-3


def test_the_cosine_begins_where_the_warmup_ends():
    assert [warmup_cosine(step, 10, 0.4) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, (1 + math.cos(math.pi / 6)) / 2])


@given(steps=st.integers(1, 200), warmup=st.floats(0, 0.9))
def test_the_cosine_rises_before_it_falls_and_every_step_learns_something(steps: int, warmup: float):
    factors = [warmup_cosine(step, steps, warmup) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    turns = [later > earlier for earlier, later in pairwise(factors) if later != pytest.approx(earlier)]
    assert turns == sorted(turns, reverse=True), "a rise after a fall"


@given(steps=st.integers(1, 200), warmup=st.floats(0, 0.5), decay=st.floats(0, 0.5))
def test_it_rises_before_it_falls_and_every_step_learns_something(steps: int, warmup: float, decay: float):
    factors = curve(steps, warmup, decay)
    assert all(0 < factor <= 1 for factor in factors)
    turns = [later > earlier for earlier, later in pairwise(factors) if later != pytest.approx(earlier)]
    assert turns == sorted(turns, reverse=True), "a rise after a fall"
