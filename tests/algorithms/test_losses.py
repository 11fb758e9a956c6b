"""The training losses, against torch's and transformers' own, and against automatic differentiation of their definitions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from transformers.loss.loss_utils import ForCausalLMLoss

from compresslab.algorithms import divergence as walk
from compresslab.algorithms.coarse import coarse_logits
from compresslab.algorithms.forward_kl import forward_kl
from compresslab.algorithms.jensen_shannon import jensen_shannon
from compresslab.algorithms.next_token import next_token_loss
from compresslab.algorithms.reverse_kl import reverse_kl
from compresslab.algorithms.skewed_kl import skewed_kl

Loss = Callable[..., Tensor]


def logits(seed: int, positions: int = 6, vocabulary: int = 11, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(positions, vocabulary, generator=torch.Generator().manual_seed(seed))


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p.log() - q.log())).sum()


def naive(formula: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """The definition, in probabilities p of the teacher and q of the student, as an equation in a paper has it."""

    def loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        p, q = ((side.double() / temperature).softmax(-1) for side in (teacher, student))
        return formula(p, q) * temperature**2

    return loss


def mixed(p: Tensor, q: Tensor, share: float) -> Tensor:
    return share * p + (1 - share) * q


DIVERGENCES: dict[str, tuple[Loss, Loss]] = {
    "forward-kl": (forward_kl, naive(kl)),
    "reverse-kl": (reverse_kl, naive(lambda p, q: kl(q, p))),
    **{
        f"jsd-{beta}": (
            partial(jensen_shannon, beta=beta),
            naive(lambda p, q, beta=beta: beta * kl(p, mixed(p, q, beta)) + (1 - beta) * kl(q, mixed(p, q, beta))),
        )
        for beta in (0.1, 0.5, 0.8)
    },
    **{
        f"skewed-kl-{skew}": (partial(skewed_kl, skew=skew), naive(lambda p, q, skew=skew: kl(p, mixed(p, q, skew)))) for skew in (0.1, 0.7)
    },
}
both = pytest.mark.parametrize(("loss", "reference"), DIVERGENCES.values(), ids=DIVERGENCES)
each = pytest.mark.parametrize("loss", [loss for loss, _ in DIVERGENCES.values()], ids=DIVERGENCES)


@each
def test_a_divergence_of_equal_logits_is_0_and_asks_for_no_change(loss: Loss):
    student = logits(0).requires_grad_()
    got = loss(student, logits(0), 2.0)
    got.backward()
    assert abs(got.item()) < 1e-5
    assert student.grad.abs().max() < 1e-6


@both
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_a_divergence_is_its_definition_times_temperature_squared(loss: Loss, reference: Loss, temperature: float):
    student, teacher = logits(0), logits(1)
    torch.testing.assert_close(loss(student, teacher, temperature).double(), reference(student, teacher, temperature), rtol=1e-5, atol=0)


@both
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_gradient_is_what_automatic_differentiation_of_the_definition_gives(loss: Loss, reference: Loss, temperature: float):
    ours, theirs = (logits(0).double().requires_grad_() for _ in range(2))
    (0.25 * loss(ours, logits(1).double(), temperature)).backward()
    (0.25 * reference(theirs, logits(1), temperature)).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


@each
def test_no_gradient_reaches_the_teacher(loss: Loss):
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None


@each
def test_extreme_bfloat16_logits_have_a_finite_gradient(loss: Loss):
    student = logits(0, scale=3e4).bfloat16().requires_grad_()
    got = loss(student, logits(1, scale=3e4).bfloat16())
    got.backward()
    assert got.dtype == torch.float32
    assert torch.isfinite(got)
    assert student.grad.dtype == torch.bfloat16
    assert torch.isfinite(student.grad).all()


@each
def test_a_divergence_leaves_its_inputs_as_they_were(loss: Loss):
    student, teacher = logits(0), logits(1)
    loss(student, teacher)
    assert torch.equal(student, logits(0))
    assert torch.equal(teacher, logits(1))


@each
def test_a_divergence_does_not_depend_on_how_many_rows_are_worked_on_at_a_time(monkeypatch: pytest.MonkeyPatch, loss: Loss):
    found = []
    for block in (11, 2 * 11, 10_000):
        monkeypatch.setattr(walk, "BLOCK", block)
        student = logits(0).requires_grad_()
        got = loss(student, logits(1))
        got.backward()
        found.append((got.detach(), student.grad))
    for got, gradient in found[1:]:
        torch.testing.assert_close(got, found[0][0])
        torch.testing.assert_close(gradient, found[0][1])


def test_the_directions_differ():
    student, teacher = logits(0), logits(1)
    torch.testing.assert_close(forward_kl(student, teacher), reverse_kl(teacher, student))
    assert not torch.isclose(forward_kl(student, teacher), reverse_kl(student, teacher))


def test_the_jensen_shannon_divergence_goes_over_into_forward_and_reverse_kl_at_its_two_ends():
    student, teacher = logits(0).double(), logits(1).double()
    torch.testing.assert_close(jensen_shannon(student, teacher, beta=1e-7) / 1e-7, forward_kl(student, teacher), rtol=1e-4, atol=0)
    near = 1 - 1e-7
    torch.testing.assert_close(jensen_shannon(student, teacher, beta=near) / (1 - near), reverse_kl(student, teacher), rtol=1e-4, atol=0)


def test_a_graph_that_was_used_up_is_not_used_again():
    loss = forward_kl(logits(0).requires_grad_(), logits(1))
    loss.backward(retain_graph=True)
    with pytest.raises(AttributeError):
        loss.backward()


@pytest.mark.parametrize("tokens", [1, 4, 10])
def test_coarse_logits_give_the_mass_of_some_tokens_and_of_the_rest(tokens: int):
    chosen = logits(2).argsort(-1)[:, :tokens]
    masses = logits(0).softmax(-1).gather(1, chosen)
    expected = torch.cat([masses, 1 - masses.sum(-1, keepdim=True)], 1)
    torch.testing.assert_close(coarse_logits(logits(0), chosen).softmax(-1), expected)


def test_the_gradient_of_coarse_logits_is_what_automatic_differentiation_gives():
    chosen = logits(2).argsort(-1)[:, :3]
    ours, theirs = (logits(0).double().requires_grad_() for _ in range(2))
    weights = logits(3, vocabulary=4).double()
    (coarse_logits(ours, chosen) * weights).sum().backward()
    rest = torch.logsumexp(theirs.scatter(1, chosen, -torch.inf), -1, keepdim=True)
    (torch.cat([theirs.gather(1, chosen), rest], 1) * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@each
def test_a_divergence_of_coarse_distributions_bounds_the_full_one_from_below(loss: Loss):
    student, teacher = logits(0), logits(1)
    full = loss(student, teacher)
    bounds = []
    for tokens in (1, 4, 10):
        chosen = teacher.topk(tokens).indices
        bounds.append(loss(coarse_logits(student, chosen), coarse_logits(teacher, chosen)))
    assert 0 < bounds[0] < bounds[1] < full
    torch.testing.assert_close(bounds[2], full)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_next_token_loss_is_transformers_own(dtype: torch.dtype):
    ids = torch.randint(0, 11, (2, 3), generator=torch.Generator().manual_seed(0))
    ids[0, 1] = -100
    rows = logits(0).to(dtype).requires_grad_()
    same = logits(0).to(dtype).requires_grad_()
    shifted = torch.cat([ids[:, 1:], torch.full((2, 1), -100)], 1).flatten()
    theirs = ForCausalLMLoss(same.view(2, 3, 11), ids, vocab_size=11, num_items_in_batch=1)
    ours = next_token_loss(rows, shifted)
    torch.testing.assert_close(ours, theirs)
    (0.5 * ours).backward()
    (0.5 * theirs).backward()
    torch.testing.assert_close(rows.grad, same.grad, atol=5e-3 if dtype == torch.bfloat16 else 1e-6, rtol=1e-2)
