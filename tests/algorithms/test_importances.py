"""Block influence and activation energy, against their definitions."""

from __future__ import annotations

import torch

from compresslab.algorithms.block_influence import block_influence
from compresslab.algorithms.neuron_importance import activation_energy, kept_neurons


def states(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(seed))


def test_a_layer_that_changes_nothing_has_influence_0():
    assert abs(block_influence(states(), states()).item()) < 1e-6


def test_orthogonal_states_have_influence_1():
    before, after = torch.zeros(2, 4, 8), torch.zeros(2, 4, 8)
    before[..., 0], after[..., 1] = 3.0, 5.0
    assert block_influence(before, after).item() == 1


def test_a_sign_flip_has_influence_2():
    assert abs(block_influence(states(), -states()).item() - 2) < 1e-6


def test_influence_does_not_depend_on_scale():
    before, after = states(0), states(1)
    torch.testing.assert_close(block_influence(7 * before, 0.01 * after), block_influence(before, after))


def test_influence_is_the_mean_over_positions_and_not_over_one_long_vector():
    before = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    after = torch.tensor([[[100.0, 0.0], [0.0, 1.0]]])  # cosines 1 and 0
    assert block_influence(before, after).item() == 0.5


def test_influence_of_bfloat16_states_is_computed_in_float32():
    before, after = states(0).bfloat16(), states(1).bfloat16()
    got = block_influence(before, after)
    assert got.dtype == torch.float32
    assert torch.equal(got, block_influence(before.float(), after.float()))


def test_activation_energy_is_the_sum_of_squares_and_adds_up_over_batches():
    whole = states()
    energy = activation_energy(whole)
    assert energy.dtype == torch.float64
    torch.testing.assert_close(energy, (whole.double() ** 2).sum((0, 1)))
    torch.testing.assert_close(sum(activation_energy(row[None]) for row in whole), energy)


def test_activation_energy_of_float16_does_not_overflow():
    energy = activation_energy(torch.full((4, 2), 60_000.0, dtype=torch.float16))
    torch.testing.assert_close(energy, torch.full((2,), 4 * 59_999.0**2, dtype=torch.float64), rtol=1e-3, atol=0)


def test_kept_neurons_are_the_most_important_ones_in_their_old_order():
    importance = torch.tensor([5.0, 1.0, 9.0, 0.0, 7.0])
    assert kept_neurons(importance, 3).tolist() == [0, 2, 4]
    assert kept_neurons(importance, 1).tolist() == [2]
