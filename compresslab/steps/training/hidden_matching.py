"""The loss of matching a teacher's hidden states through learned projectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

# Smaller than every squared norm of a hidden state; it prevents a division by zero.
MIN_SQUARED_NORM = 1e-6


class HiddenMatching(nn.Module):
    """Linear maps from the student's hidden states after each layer to the teacher's hidden states at the same relative depth.

    Student layer i of n is matched with teacher layer round(i N / n) of N, so the last with the last (both after the final norm). The
    loss of a position is the squared distance divided by the squared norm of the teacher's state, since the norms of hidden states differ
    by orders of magnitude between layers and between tokens. It is averaged over positions and layers. The maps are initialized with the
    identity (cut or padded with zeros if sizes differ), trained with the student, and discarded.

    Source: Jiao et al. 2019, "TinyBERT", arXiv 1909.10351, section 3.1 (hidden-state distillation with a learned map, layers evenly
    spaced). Muralidharan et al. 2024, "Minitron", arXiv 2407.14679, section 3, finds it to help where depth was cut a lot.
    """

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        super().__init__()
        ours, theirs = student.config.get_text_config(), teacher.config.get_text_config()
        layers, teacher_layers = ours.num_hidden_layers, theirs.num_hidden_layers
        self.pairs = [(layer, max(1, round(layer * teacher_layers / layers))) for layer in range(1, layers + 1)]
        self.maps = nn.ModuleList(_identity(ours.hidden_size, theirs.hidden_size) for _ in self.pairs).to(student.device)

    def forward(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        """Mean over layers and positions, 0 for a perfect match.

        Args:
            student, teacher: hidden states (n, length, hidden) before the first layer and after each.
        """
        losses = []
        for linear, (ours, theirs) in zip(self.maps, self.pairs, strict=True):
            target = teacher[theirs].float()
            distance = (linear(student[ours]).float() - target).square().sum(-1)
            losses.append((distance / target.square().sum(-1).clamp(min=MIN_SQUARED_NORM)).mean())
        return torch.stack(losses).mean()


def _identity(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.eye_(linear.weight)
    return linear
