"""Retraining: continue training on plain text, all weights or low-rank adapters that are merged at the end."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compresslab.algorithms.next_token import next_token_loss
from compresslab.models.load import Loaded, cast
from compresslab.recipe.schema import RetrainFull, RetrainLoRA
from compresslab.steps.contract import Context, Outcome
from compresslab.steps.trainer import ChunkLoss, sparse_zeros, train


def apply(loaded: Loaded, config: RetrainFull | RetrainLoRA, context: Context) -> Outcome:
    """Minimise the cross-entropy of the next token over the training text."""
    assert context.text is not None
    dtype = loaded.model.dtype
    model = cast(loaded.model, torch.float32)
    zeros = sparse_zeros(model)
    adapted = with_adapters(model, config) if isinstance(config, RetrainLoRA) else None
    done = train(model, context.text.ids, config.optimizer, config.seed, language_modelling, context.progress)
    if adapted is not None:
        # The base was frozen under the adapters; the merged model is as trainable as any other.
        model = adapted.merge_and_unload().requires_grad_()
        for parameter, mask in zeros:  # merging adds the adapters to every weight
            parameter.data.masked_fill_(mask, 0.0)
    return Outcome(cast(model, dtype), tokens_seen=done.tokens, details={"steps": done.steps, "loss": done.losses})


def language_modelling(micro: Tensor) -> ChunkLoss:
    """Next-token loss of a micro-batch (n, length). The last position of a sequence has no target."""
    targets = torch.cat([micro[:, 1:], micro.new_full((micro.shape[0], 1), -100)], dim=1).flatten()

    def chunk(logits: Tensor, part: slice) -> Tensor:
        return next_token_loss(logits, targets[part])

    return chunk


def with_adapters(model: PreTrainedModel, config: RetrainLoRA) -> PreTrainedModel:
    """Put LoRA adapters on every linear layer of the blocks, in place, and freeze everything else.

    Source: Hu et al. 2021, "LoRA", arXiv 2106.09685, as peft implements it.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(config.seed)
    lora = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, lora)
