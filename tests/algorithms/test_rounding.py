"""Scales of round-to-nearest quantization."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compresslab.algorithms.round_to_nearest import symmetric_scales

GROUP = 8


def rounded(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The integers that would be stored, without clamping: (rows, groups, GROUP)."""
    return (weight.float().view(*scales.shape, -1) / scales.float()[..., None]).round()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), bits=st.sampled_from([4, 8]), exponent=st.integers(-9, 9))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_level_overflows_and_no_weight_moves_by_more_than_half_a_scale(dtype: torch.dtype, seed: int, bits: int, exponent: int):
    weight = torch.randn(3, 4 * GROUP, generator=torch.Generator().manual_seed(seed)).mul(10.0**exponent)
    weight = weight.clamp(-6e4, 6e4).to(dtype)
    scales = symmetric_scales(weight, bits, GROUP)
    levels = rounded(weight, scales)
    assert scales.shape == (3, 4)
    assert scales.dtype == dtype
    assert (scales > 0).all()
    assert levels.abs().max() <= 2 ** (bits - 1) - 1
    error = (levels * scales.float()[..., None] - weight.float().view(*levels.shape)).abs()
    assert (error <= scales.float()[..., None] * 0.5001).all()


def test_the_largest_weight_of_a_group_takes_the_largest_level():
    weight = torch.tensor([[0.7, -0.1, 0.2, 0.0, -1.4, 0.3, 0.2, 0.1]])
    scales = symmetric_scales(weight, 4, 4)
    torch.testing.assert_close(scales, torch.tensor([[0.1, 0.2]]))
    assert rounded(weight, scales)[0, 0].tolist() == [7, -1, 2, 0]


def test_a_group_of_zeros_gets_scale_1():
    weight = torch.zeros(1, 2 * GROUP)
    weight[0, 0] = 3.5
    assert symmetric_scales(weight, 4, GROUP).tolist() == [[0.5, 1.0]]


def test_a_group_that_is_tiny_in_float16_does_not_divide_by_zero():
    weight = torch.full((1, GROUP), 1.2e-7, dtype=torch.float16)  # its share of 7 levels is below the smallest float16
    scales = symmetric_scales(weight, 4, GROUP)
    assert torch.isfinite(weight / scales).all()
