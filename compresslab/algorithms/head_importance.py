"""Importance of attention heads from their activations, without gradients."""

from __future__ import annotations

from torch import Tensor


def group_sum_of_squares(sum_of_squares: Tensor, groups: int) -> Tensor:
    """Sum over a group's query heads and their dimensions, (groups,). A group is a key/value head with its query heads.

    The sum of squares of a head is the square of Minitron's importance with the L2 norm: Muralidharan et al. 2024, "Compact Language Models
    via Pruning and Knowledge Distillation", arXiv 2407.14679, section 2.2. A key/value head is removed with all its query heads, so their
    sums are added.

    Args:
        sum_of_squares: (query heads * dimensions,) sums of squares of the inputs of the output projection, group by group.
    """
    return sum_of_squares.view(groups, -1).sum(1)
