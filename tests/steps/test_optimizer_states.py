"""The optimizer's states in 8 bits: what they hold, and how near they are to those of 32.

tests/steps/test_checkpoints.py kills and resumes runs with them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from compresslab.methods.settings import Optimizer
from compresslab.steps.training.optimizer import adamw, restored, saved


def updated(bits: Literal[8, 32], steps: int = 6, interrupted_at: int | None = None) -> tuple[list[Tensor], torch.optim.Optimizer]:
    """A matrix and a vector after some steps, and their optimizer, which another one replaces after the interruption."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator) for shape in ((128, 64), (64,))]
    settings = Optimizer(learning_rate=1e-2, state_bits=bits)

    def new() -> torch.optim.Optimizer:
        return adamw([{"params": weights[:1], "weight_decay": 0.1}, {"params": weights[1:], "weight_decay": 0.0}], settings)

    optimizer = new()
    for step in range(steps):
        for weight in weights:
            weight.grad = weight + torch.randn(weight.shape, generator=generator)
        optimizer.step()
        if step == interrupted_at:
            kept = [{name: value.clone() for name, value in saved(optimizer, weight).items()} for weight in weights]
            optimizer = new()
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": {n: restored(optimizer, one) for n, one in enumerate(kept)}, "param_groups": groups})
    return weights, optimizer


def test_moments_of_matrices_have_8_bits_and_those_of_small_tensors_32() -> None:
    (matrix, vector), optimizer = updated(8)
    assert {optimizer.state[matrix][name].dtype for name in ("state1", "state2")} == {torch.uint8}
    assert {optimizer.state[vector][name].dtype for name in ("state1", "state2")} == {torch.float32}
    # Two bytes a weight, and a scale of four bytes for each moment of a block of 256.
    held = [value for name, value in saved(optimizer, matrix).items() if name != "step"]
    assert sum(value.nbytes for value in held) == matrix.numel() * 2 * (1 + 4 / 256)


def test_steps_with_8_bits_are_near_those_with_32() -> None:
    (coarse, small), _ = updated(8)
    (fine, exact), _ = updated(32)
    moved = (fine - updated(32, steps=0)[0][0]).abs().mean()
    assert 0 < (coarse - fine).abs().mean() < 0.05 * moved
    torch.testing.assert_close(small, exact, rtol=1e-6, atol=1e-6)


def test_a_restored_optimizer_continues_as_if_nothing_had_happened() -> None:
    for bits in (8, 32):
        assert all(map(torch.equal, updated(bits)[0], updated(bits, interrupted_at=2)[0])), bits
