"""The training loop that distillation and retraining share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compresslab.algorithms.schedule import warmup_stable_decay
from compresslab.errors import BadInput, RunFailed
from compresslab.models.anatomy import output_head
from compresslab.recipe.schema import Optimizer
from compresslab.steps.contract import Progress

# Positions whose logits exist at the same time: 512 x 49k x 4 bytes is 100 MB, 512 x 256k is 520 MB. Fewer would add the
# head's weight gradient more often.
POSITIONS_A_CHUNK = 512
LOSSES_KEPT = 200
# Share of zeros from which on a linear layer counts as pruned.
SPARSE = 0.05

# (logits (positions, vocabulary), which positions of the flattened batch these are) -> summed loss in nats
ChunkLoss = Callable[[Tensor, slice], Tensor]


class Trained(NamedTuple):
    """What a training run saw: tokens, optimizer steps, and the mean loss in nats a token of (at most 200) steps."""

    tokens: int
    steps: int
    losses: list[float]


def train(
    model: PreTrainedModel,
    ids: Tensor,
    optimizer: Optimizer,
    seed: int,
    loss_of: Callable[[Tensor], ChunkLoss],
    progress: Progress,
) -> Trained:
    """Train the parameters that require gradients, in float32 with a bfloat16 forward pass.

    Args:
        model: in float32; changed in place.
        ids: (sequences, length), each used once, in this order.
        loss_of: for a micro-batch (n, length), the loss of its logits, chunk by chunk. Logits of the whole batch
            never exist at once, so that a vocabulary of 256k costs no more memory than one of 32k.

    Raises:
        BadInput: less text than one batch. RunFailed: the loss became NaN or infinite.
    """
    torch.manual_seed(seed)
    length = ids.shape[1]
    per_batch, per_micro = max(1, optimizer.batch_tokens // length), max(1, optimizer.micro_batch_tokens // length)
    steps = ids.shape[0] // per_batch
    if steps == 0:
        raise BadInput(
            f"{ids.numel()} training tokens are less than one batch of {optimizer.batch_tokens}; "
            "raise tokens or lower optimizer.batch_tokens"
        )
    head = output_head(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    zeros = sparse_zeros(model)
    adam = torch.optim.AdamW(trained, lr=optimizer.learning_rate, betas=(0.9, 0.95), weight_decay=optimizer.weight_decay, fused=True)
    losses: list[float] = []
    model.train()
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = optimizer.learning_rate * warmup_stable_decay(step, steps, optimizer.warmup, optimizer.decay)
        batch = ids[step * per_batch : (step + 1) * per_batch]
        total = 0.0
        for start in range(0, per_batch, per_micro):
            micro = batch[start : start + per_micro].to(model.device)
            total += _backward(model, head, micro, loss_of, batch.numel())
        if not math.isfinite(total):
            raise RunFailed(f"the training loss is {total} at step {step + 1} of {steps}; lower optimizer.learning_rate")
        torch.nn.utils.clip_grad_norm_(trained, optimizer.max_grad_norm)
        adam.step()
        for parameter, mask in zeros:
            parameter.data.masked_fill_(mask, 0.0)
        adam.zero_grad(set_to_none=True)
        losses.append(total)
        progress((step + 1) / steps, f"loss {total:.3f}")
    model.eval()
    return Trained(steps * per_batch * length, steps, thinned(losses))


def sparse_zeros(model: PreTrainedModel) -> list[tuple[Tensor, Tensor]]:
    """The weights of linear layers that pruning has set to zero, as masks: training keeps them so.

    A layer with fewer zeros than `SPARSE` was not pruned; a dense model in bfloat16 has next to none.
    """
    found = []
    for module in model.modules():
        if type(module) is nn.Linear:
            mask = module.weight == 0
            if SPARSE < mask.float().mean() < 1:  # adapters start as nothing but zeros
                found.append((module.weight, mask))
    return found


def _backward(
    model: PreTrainedModel, head: Callable[[Tensor], Tensor], micro: Tensor, loss_of: Callable[[Tensor], ChunkLoss], tokens: int
) -> float:
    """Forward and backward of one micro-batch (n, length); returns its share of the batch's mean loss."""
    chunk_loss = loss_of(micro)
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        hidden = model.base_model(input_ids=micro, use_cache=False).last_hidden_state.flatten(0, 1)
        # The head's gradient is taken chunk by chunk and handed to the backbone in one go.
        leaf = hidden.detach().requires_grad_()
        total = 0.0
        for start in range(0, leaf.shape[0], POSITIONS_A_CHUNK):
            part = slice(start, min(start + POSITIONS_A_CHUNK, leaf.shape[0]))
            loss = chunk_loss(head(leaf[part]), part) / tokens
            torch.autograd.backward(loss)
            total += loss.item()
    torch.autograd.backward(hidden, leaf.grad)
    return total


def thinned(losses: list[float]) -> list[float]:
    """At most `LOSSES_KEPT` evenly spaced values, the last one among them, to six digits."""
    stride = -(-len(losses) // LOSSES_KEPT)
    return [round(value, 6) for value in losses[::-1][::stride][::-1]]
