"""The training losses, against torch's and transformers' own."""

from __future__ import annotations

import pytest
import torch
from transformers.loss.loss_utils import ForCausalLMLoss

from compresslab.algorithms.forward_kl import forward_kl
from compresslab.algorithms.next_token import next_token_loss


def logits(seed: int, positions: int = 6, vocabulary: int = 11, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(positions, vocabulary, generator=torch.Generator().manual_seed(seed))


def reference_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    p, q = (torch.distributions.Categorical(logits=side.double() / temperature) for side in (teacher, student))
    return torch.distributions.kl_divergence(p, q).sum() * temperature**2


def test_forward_kl_of_equal_logits_is_0_and_asks_for_no_change():
    student = logits(0).requires_grad_()
    loss = forward_kl(student, logits(0), 2.0)
    loss.backward()
    assert loss.item() == 0
    assert student.grad.abs().max() == 0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_forward_kl_is_the_divergence_from_teacher_to_student_times_temperature_squared(temperature: float):
    student, teacher = logits(0), logits(1)
    got = forward_kl(student, teacher, temperature)
    torch.testing.assert_close(got.double(), reference_kl(student, teacher, temperature))
    if temperature != 1:
        assert not torch.isclose(got, forward_kl(student, teacher, 1.0))
    assert not torch.isclose(got, forward_kl(teacher, student, temperature)), "the direction matters"


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_gradient_of_forward_kl_is_what_automatic_differentiation_gives(temperature: float):
    ours, theirs = logits(0).requires_grad_(), logits(0).double().requires_grad_()
    (0.25 * forward_kl(ours, logits(1), temperature)).backward()
    (0.25 * reference_kl(theirs, logits(1), temperature)).backward()
    torch.testing.assert_close(ours.grad.double(), theirs.grad)


def test_no_gradient_reaches_the_teacher():
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    forward_kl(student, teacher).backward()
    assert teacher.grad is None or not teacher.grad.any()


def test_forward_kl_of_extreme_bfloat16_logits_has_a_finite_gradient():
    student = logits(0, scale=3e4).bfloat16().requires_grad_()
    loss = forward_kl(student, logits(1, scale=3e4).bfloat16())
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert student.grad.dtype == torch.bfloat16
    assert torch.isfinite(student.grad).all()


def test_forward_kl_leaves_its_inputs_as_they_were():
    student, teacher = logits(0), logits(1)
    forward_kl(student, teacher)
    assert torch.equal(student, logits(0))
    assert torch.equal(teacher, logits(1))


def test_forward_kl_adds_up_over_chunks():
    student, teacher = logits(0), logits(1)
    parts = sum(forward_kl(student[rows], teacher[rows]) for rows in (slice(0, 2), slice(2, 6)))
    torch.testing.assert_close(parts, forward_kl(student, teacher))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_next_token_loss_is_transformers_own(dtype: torch.dtype):
    ids = torch.randint(0, 11, (2, 3), generator=torch.Generator().manual_seed(0))
    ids[0, 1] = -100
    rows = logits(0).to(dtype)
    shifted = torch.cat([ids[:, 1:], torch.full((2, 1), -100)], 1).flatten()
    theirs = ForCausalLMLoss(rows.view(2, 3, 11), ids, vocab_size=11, num_items_in_batch=1)
    torch.testing.assert_close(next_token_loss(rows, shifted), theirs)
