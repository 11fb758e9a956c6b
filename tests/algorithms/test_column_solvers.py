"""GPTQ and SparseGPT against their papers' algorithms written down plainly, and against what they must never be worse than."""

import pytest
import torch

from compresslab.algorithms.awq import channel_scales, clipped, output_error, rounded
from compresslab.algorithms.feedback import ErrorFeedback
from compresslab.algorithms.gptq import gptq
from compresslab.algorithms.grid import Grid, grid_of
from compresslab.algorithms.hessian import gram, inverse_factor
from compresslab.algorithms.sparsegpt import sparsegpt

ROWS, COLUMNS, GROUP = 24, 160, 32


def problem(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and the second moments of inputs that are alike and of unequal size."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(COLUMNS, COLUMNS, generator=generator) * 0.2 + torch.eye(COLUMNS)
    inputs = (
        torch.randn(600, COLUMNS, generator=generator)
        @ mixing
        * torch.logspace(-1, 1, COLUMNS)[torch.randperm(COLUMNS, generator=generator)]
    )
    return torch.randn(ROWS, COLUMNS, generator=generator), gram(inputs)


def test_the_factor_is_the_upper_cholesky_factor_of_the_damped_inverse():
    _, second = problem()
    factor = inverse_factor(second, 0.01)
    damped = second.double() + 0.01 * second.double().diagonal().mean() * torch.eye(COLUMNS)
    assert torch.equal(factor, factor.triu())
    assert torch.allclose(factor.double(), torch.linalg.cholesky(damped.inverse(), upper=True), rtol=1e-3, atol=1e-5)


def plain_gptq(weight: torch.Tensor, factor: torch.Tensor, bits: int, symmetric: bool) -> torch.Tensor:
    """Algorithm 1 of the paper, column by column without blocks, in float64."""
    work, factor = weight.double().clone(), factor.double()
    result = torch.empty_like(work)
    for column in range(COLUMNS):
        if column % GROUP == 0:
            grid = grid_of(work[:, column : column + GROUP].float(), bits, torch.float32, symmetric=symmetric)
        now = work[:, column : column + 1]
        result[:, column : column + 1] = grid.weight(grid.codes(now.float(), bits)).double()
        error = (now - result[:, column : column + 1]) / factor[column, column]
        work[:, column:] -= error * factor[column, column:]
    return result


@pytest.mark.parametrize(("bits", "symmetric"), [(4, True), (3, False), (2, True), (8, False)])
def test_gptq_gives_what_the_paper_s_algorithm_gives(bits: int, symmetric: bool):
    weight, second = problem()
    factor = inverse_factor(second, 0.01)
    ours = gptq(weight, factor, bits, GROUP, torch.float32, symmetric=symmetric).weight()
    # A weight that lies between two levels may fall to either by the last bit, and moves those behind it.
    assert (ours - plain_gptq(weight, factor, bits, symmetric)).abs().lt(1e-4).float().mean() > 0.97


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_gptq_loses_less_than_rounding_and_activation_order_less_still(bits: int, symmetric: bool):
    plain_wins = ordered_wins = 0
    for seed in range(5):
        weight, second = problem(seed)
        grid = grid_of(weight.reshape(-1, GROUP), bits, torch.float32, symmetric=symmetric)
        nearest = grid.weight(grid.codes(weight.reshape(-1, GROUP), bits)).view_as(weight)
        solved = gptq(weight, inverse_factor(second, 0.01), bits, GROUP, torch.float32, symmetric=symmetric).weight()
        order = second.diagonal().argsort(descending=True)
        turned = inverse_factor(second[order][:, order], 0.01)
        ordered = gptq(weight, turned, bits, GROUP, torch.float32, symmetric=symmetric, order=order).weight()
        losses = [output_error(way - weight, second) for way in (nearest, solved, ordered)]
        plain_wins += losses[1] < losses[0]
        ordered_wins += losses[2] < losses[1]
    assert plain_wins == 5
    assert ordered_wins >= 4


def test_inputs_that_have_nothing_to_do_with_each_other_leave_nothing_to_correct():
    weight, _ = problem()
    grid = grid_of(weight.reshape(-1, GROUP), 4, torch.float32, symmetric=True)
    nearest = grid.weight(grid.codes(weight.reshape(-1, GROUP), 4)).view_as(weight)
    alone = inverse_factor(torch.rand(COLUMNS).diag() + torch.eye(COLUMNS), 0.01)
    assert torch.allclose(gptq(weight, alone, 4, GROUP, torch.float32, symmetric=True).weight(), nearest, atol=1e-5)


def test_one_group_may_span_all_columns_and_codes_stay_within_the_bits():
    weight, second = problem()
    done = gptq(weight, inverse_factor(second, 0.01), 3, COLUMNS, torch.float16, symmetric=False)
    assert done.grid.scale.shape == (ROWS, 1)
    assert done.codes.max() <= 7
    assert torch.equal(done.grid.scale, done.grid.scale.half().float())


def test_a_zero_point_of_zero_is_never_used_since_the_checkpoint_cannot_tell_it():
    positive = torch.rand(4, 32) + 1
    assert (grid_of(positive, 4, torch.float16, symmetric=False).zero >= 1).all()
    assert (grid_of(-positive, 4, torch.float16, symmetric=False).zero <= 15).all()
    zeros = grid_of(torch.zeros(2, 32), 4, torch.float16, symmetric=True)
    assert torch.equal(zeros.weight(zeros.codes(torch.zeros(2, 32), 4)), torch.zeros(2, 32))


def test_columns_receive_the_errors_of_all_settled_ones_whatever_the_blocks():
    weight, second = problem()
    factor = inverse_factor(second, 0.01)
    feedback, work = ErrorFeedback(weight, factor), weight.double().clone()
    for column in range(COLUMNS):
        now = feedback.column(column)
        assert torch.allclose(now.double(), work[:, column], rtol=1e-3, atol=1e-3)
        settled = now.round()
        feedback.settle(column, now, settled)
        work[:, column:] -= ((work[:, column] - settled.double()) / factor[column, column].double())[:, None] * factor[
            column, column:
        ].double()


@pytest.mark.parametrize("pattern", [None, (2, 4), (1, 4)])
def test_sparsegpt_loses_less_than_the_same_mask_without_correction(pattern: tuple[int, int] | None):
    weight, second = problem()
    pruned = sparsegpt(weight, inverse_factor(second, 0.01), 0.5, pattern)
    share = 0.5 if pattern is None else 1 - pattern[0] / pattern[1]
    assert (pruned == 0).float().mean() == pytest.approx(share)
    assert output_error(pruned - weight, second) < output_error(weight * (pruned != 0) - weight, second)


def test_awq_scales_up_the_channels_whose_activations_are_large():
    weight, _ = problem()
    sizes = torch.ones(COLUMNS)
    sizes[::20] = 30.0
    second = gram(torch.randn(500, COLUMNS, generator=torch.Generator().manual_seed(1)) * sizes)
    best = channel_scales([weight], [second], sizes, 4, GROUP, torch.float16)
    assert best.exponent > 0
    assert best.error < 0.9
    assert best.scale[0] > 2 * best.scale[1]
    plain = output_error(rounded(weight, 4, GROUP, torch.float16) - weight, second)
    scaled = output_error(rounded(weight * best.scale, 4, GROUP, torch.float16) / best.scale - weight, second)
    assert scaled / plain == pytest.approx(best.error, rel=1e-4)


def test_awq_cuts_a_range_only_where_that_loses_less():
    weight, second = problem()
    weight[:, 3] *= 6
    whole = rounded(weight, 4, GROUP, torch.float16)
    grid = clipped(weight, second, 4, GROUP, torch.float16)
    wide = Grid(*(part.repeat_interleave(GROUP, 1) for part in grid))
    cut = wide.weight(wide.codes(weight, 4))
    for group in range(0, COLUMNS, GROUP):
        block = slice(group, group + GROUP)
        inside = second[block, block]
        assert output_error((cut - weight)[:, block], inside) <= output_error((whole - weight)[:, block], inside) * (1 + 1e-5)
    assert not torch.equal(cut, whole)


def test_small_weights_at_eight_bits_keep_their_digits():
    weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(0)) * 0.002
    half, exact = (grid_of(weight, 8, stored, symmetric=True) for stored in (torch.float16, torch.float32))
    errors = [(grid.weight(grid.codes(weight, 8)) - weight).square().mean() for grid in (half, exact)]
    assert errors[0] < 1.1 * errors[1]
