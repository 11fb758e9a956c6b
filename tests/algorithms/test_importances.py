"""What layers, runs of layers, neurons, heads and channels matter, against the definitions."""

from __future__ import annotations

import torch

from compresslab.algorithms.angular_distance import angular_distances
from compresslab.algorithms.block_influence import block_influence
from compresslab.algorithms.channel_importance import channel_sum_of_squares
from compresslab.algorithms.contiguous_run import runs_by_distance
from compresslab.algorithms.head_importance import group_sum_of_squares
from compresslab.algorithms.neuron_importance import most_important, share_lost


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


def test_what_is_kept_is_the_most_important_in_its_old_order():
    importance = torch.tensor([5.0, 1.0, 9.0, 0.0, 7.0])
    assert most_important(importance, 3).tolist() == [0, 2, 4]
    assert most_important(importance, 1).tolist() == [2]


def test_of_equally_important_ones_the_first_are_kept():
    assert most_important(torch.tensor([0.0] * 40 + [1.0] * 40), 60).tolist() == [*range(20), *range(40, 80)]


def test_the_share_lost_is_the_energy_of_what_goes():
    sum_of_squares = torch.tensor([4.0, 1.0, 3.0, 0.0], dtype=torch.float64)
    assert share_lost(sum_of_squares, torch.tensor([0, 2])) == 0.125
    assert share_lost(sum_of_squares, torch.tensor([0, 1, 2])) == 0
    assert share_lost(torch.zeros(3), torch.tensor([0])) == 0, "nothing was there to be lost"


def test_a_group_has_the_energy_of_all_its_query_heads():
    heads, dimensions = 4, 3
    sum_of_squares = torch.arange(heads * dimensions, dtype=torch.float64)
    assert group_sum_of_squares(sum_of_squares, 2).tolist() == [sum(range(6)), sum(range(6, 12))]
    assert group_sum_of_squares(sum_of_squares, 4).tolist() == [3, 12, 21, 30]


def test_a_channel_has_its_energy_of_all_layers():
    assert channel_sum_of_squares(iter([torch.tensor([1.0, 2.0]), torch.tensor([10.0, 0.0]), torch.tensor([0.0, 5.0])])).tolist() == [11, 7]


def test_the_first_run_is_the_one_whose_ends_are_nearest():
    distances = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    for length in range(1, 6):
        expected = sorted(range(6 - length), key=lambda first: float(distances[first, first + length]))
        assert runs_by_distance(distances, length) == expected
    assert runs_by_distance(torch.zeros(4, 4), 2) == [0, 1]


def test_angular_distance_of_states():
    """Equal states are at 0, orthogonal ones at a half, opposite ones at 1."""
    states = torch.tensor([[[2.0, 0.0]], [[0.0, 5.0]], [[-1.0, 0.0]], [[3.0, 0.0]]])
    distances = angular_distances(states)
    torch.testing.assert_close(distances[0], torch.tensor([0.0, 0.5, 1.0, 0.0]))
    assert torch.equal(distances, distances.T)


def test_angular_distance_is_the_mean_over_sequences():
    states = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    assert angular_distances(states)[0, 1].item() == 0.25
