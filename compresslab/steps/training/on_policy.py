"""On-policy batches: text that the student generates itself."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from compresslab.errors import BadInput

# A student continues a sequence as one text; where a document of it would end, nobody knows before it is written.
BOUNDED_REFUSED = "what a student writes has no documents to keep apart; take text.training.documents: packed, or drop on_policy"


def is_on_policy(step: int, share: float) -> bool:
    """Whether the batch of `step` is on-policy. Such batches are the share `share` of all, evenly spread."""
    return int((step + 1) * share) > int(step * share)


def check_prompt(prompt: int, length: int, *, bounded: bool) -> None:
    """Refuse a prompt that leaves no tokens to generate, and a text whose documents are kept apart.

    Raises:
        BadInput: the message names both lengths, or the setting.
    """
    if bounded:
        raise BadInput(BOUNDED_REFUSED)
    if prompt >= length:
        raise BadInput(
            f"prompt {prompt} is not below the {length} tokens of a sequence, so the student would write nothing; "
            "lower prompt or raise text.training.length"
        )


@torch.no_grad()
def continue_sequences(model: PreTrainedModel, ids: Tensor, prompt: int) -> Tensor:
    """The sequences (n, length) with all tokens after the first `prompt` sampled from the model at temperature 1.

    An end-of-text token does not end a sequence, as in the training text. Samples use torch's default generator.

    Source: Agarwal et al. 2023, "On-Policy Distillation of Language Models" (GKD), arXiv 2306.13649.
    """
    settings = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=ids.shape[1] - prompt, eos_token_id=None, pad_token_id=0
    )
    training, generation_config = model.training, model.generation_config
    model.eval()
    model.generation_config = GenerationConfig()  # the model's own one may contain top_k, penalties and stop tokens
    try:
        start = ids[:, :prompt]
        generated: Tensor = model.generate(start, attention_mask=torch.ones_like(start), generation_config=settings)
    finally:
        model.generation_config = generation_config
        model.train(training)
    return generated
