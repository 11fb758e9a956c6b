"""How much of each divergence remains on a teacher's 64 largest logits, and how a temperature changes its gradient.

    python benchmarks/stored_logits.py

Teacher: SmolLM2-135M-Instruct; student: the same without layers 18 to 23 of 30; 8 sequences of 256 tokens of `installed-docs`. Gradients
are those with respect to the student's logits, in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from compresslab.algorithms.coarse import coarse_logits
from compresslab.algorithms.forward_kl import forward_kl
from compresslab.algorithms.jensen_shannon import jensen_shannon
from compresslab.algorithms.reverse_kl import reverse_kl
from compresslab.algorithms.skewed_kl import skewed_kl
from compresslab.models.load import load
from compresslab.models.surgery.shortening import drop_layers
from compresslab.models.text import sequences

TOP_K, SEQUENCES, LENGTH = 64, 8, 256
DROPPED = range(18, 24)
DIVERGENCES = {
    "forward-kl": forward_kl,
    "reverse-kl": reverse_kl,
    "jsd": partial(jensen_shannon, beta=0.5),
    "skewed-kl": partial(skewed_kl, skew=0.1),
}


def main() -> None:
    """Compute both distributions once, then every divergence on all tokens and on the largest."""
    loaded = load("offline:smollm2-135m-instruct", "float32", device="cpu")
    ids = sequences("installed-docs", loaded.tokenizer, SEQUENCES, LENGTH, 0).ids
    model = loaded.model
    with torch.no_grad():
        teacher = model(input_ids=ids).logits.flatten(0, 1)
        drop_layers(model, [number for number in range(model.config.num_hidden_layers) if number not in DROPPED])
        student = model(input_ids=ids).logits.flatten(0, 1)
    tokens = teacher.topk(TOP_K).indices
    stored = coarse_logits(teacher, tokens).log_softmax(-1)
    for name, divergence in DIVERGENCES.items():
        for temperature in (1.0, 2.0, 4.0):
            whole, whole_gradient = of(student, partial(divergence, teacher_logits=teacher, temperature=temperature))
            part, gradient = of(student, partial(on_largest, tokens, partial(divergence, teacher_logits=stored, temperature=temperature)))
            cosine = torch.nn.functional.cosine_similarity(whole_gradient.flatten(), gradient.flatten(), dim=0).item()
            norm = (gradient.norm() / whole_gradient.norm()).item()
            print(f"{name:10} T {temperature:.0f}: value {part / whole:.2f}, cosine {cosine:.2f}, norm {norm:.2f} of those over all tokens")


def on_largest(tokens: Tensor, loss: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """A loss of logits over some tokens and the mass of the rest."""
    return loss(coarse_logits(logits, tokens))


def of(student: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[float, Tensor]:
    """A loss of the student's logits and its gradient."""
    logits = student.clone().requires_grad_()
    value = loss(logits)
    value.backward()
    assert logits.grad is not None
    return value.item(), logits.grad


if __name__ == "__main__":
    main()
