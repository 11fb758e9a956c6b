"""Batches that the student writes itself, so that it learns where its own text takes it."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from compresslab.errors import BadInput


def is_on_policy(step: int, share: float) -> bool:
    """Whether the batch of `step` is the student's own: evenly spread, `share` of all."""
    return int((step + 1) * share) > int(step * share)


def check_prompt(prompt: int, length: int) -> None:
    """Refuse a prompt that leaves nothing to write.

    Raises:
        BadInput: naming both lengths.
    """
    if prompt >= length:
        raise BadInput(
            f"prompt {prompt} is not below the {length} tokens of a sequence, so the student would write nothing; "
            "lower prompt or raise text.training.length"
        )


@torch.no_grad()
def continued(model: PreTrainedModel, ids: Tensor, prompt: int) -> Tensor:
    """The sequences (n, length) with all after the first `prompt` tokens drawn from the model's own distribution, at temperature 1.

    An end of text does not end a sequence, as it does not in the training text. Draws come from torch's own generator.

    Source: Agarwal et al. 2023, "On-Policy Distillation of Language Models" (GKD), arXiv 2306.13649.
    """
    settings = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=ids.shape[1] - prompt, eos_token_id=None, pad_token_id=0
    )
    training, own = model.training, model.generation_config
    model.eval()
    model.generation_config = GenerationConfig()  # a model's own may ask for top_k, penalties and stops
    try:
        start = ids[:, :prompt]
        written: Tensor = model.generate(start, attention_mask=torch.ones_like(start), generation_config=settings)
    finally:
        model.generation_config = own
        model.train(training)
    return written
