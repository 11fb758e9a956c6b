"""Retraining: continue training on plain text, all weights or low-rank adapters that are merged at the end."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compresslab.algorithms.next_token import next_token_loss
from compresslab.methods.retrain import RetrainFull, RetrainLoRA
from compresslab.models.load import Loaded, cast
from compresslab.models.text import TokenSequences
from compresslab.steps.contract import Context, StepResult
from compresslab.steps.distill import same_vocabulary
from compresslab.steps.training.held_out import Goal, mean_loss, next_targets, split
from compresslab.steps.training.sparsity import pruned_zeros
from compresslab.steps.training.trainer import MicroBatch, Objective, TrainResult, TrainSettings, train


def apply(loaded: Loaded, config: RetrainFull | RetrainLoRA, context: Context) -> StepResult:
    """Minimise the cross-entropy of the next token over the training text, or until it is as low as another model's.

    With `until`, the last of the different sequences are not trained on, and the loss on them is what counts. A run that stops before its
    last step leaves out the rest of the schedule, the decay with it.

    Raises:
        BadInput: there is too little text; the other model has another vocabulary; `qlora`, and the model has layers that bitsandbytes does
            not hold at 4 bits.
    """
    assert context.text is not None
    dtype, compute = loaded.model.dtype, context.dtype(loaded.model)
    text, goal = context.text, None
    if config.until is not None:
        assert context.other is not None
        same_vocabulary(loaded, context.other, config.until)
        text, held = split(text)
        context.progress(0.0, f"the loss of {config.until} on {len(held)} held-out sequences")
        goal = Goal(mean_loss(context.other.model, held), held)
    settings = TrainSettings(
        config.optimizer, config.seed, context.progress, (), context.checkpoints, config.model_dump_json(), goal, compute
    )
    if isinstance(config, RetrainFull):
        model, done = loaded.model, train(loaded.model, text, settings, language_modelling)
    else:
        model, done = _through_adapters(loaded.model, config, text, settings)
    return StepResult(cast(model, dtype), tokens_seen=done.tokens, details={"steps": done.steps, "loss": done.losses, **_told(done, goal)})


def language_modelling(micro: MicroBatch) -> Objective:
    """The next-token loss of the text itself."""
    targets = next_targets(micro.ids)

    def chunk(logits: Tensor, part: slice) -> Tensor:
        return next_token_loss(logits, targets[part])

    return Objective(micro.ids, chunk)


def _through_adapters(
    model: PreTrainedModel, config: RetrainLoRA, text: TokenSequences, settings: TrainSettings
) -> tuple[PreTrainedModel, TrainResult]:
    """Train adapters and merge them in float32; zeros of a pruned model stay."""
    zeros = pruned_zeros(model)
    if config.method == "qlora":
        from compresslab.steps.training.four_bits import hold_at_four_bits, merge_unpacked

        hold_at_four_bits(model, settings.compute)
        adapted = with_adapters(model, config)
        done = train(model, text, settings, language_modelling)
        merged = merge_unpacked(adapted)
    else:
        adapted = with_adapters(model, config)
        done = train(model, text, settings, language_modelling)
        merged = cast(adapted, torch.float32).merge_and_unload()
    for name, mask in zeros.items():  # merging adds the adapters to every weight
        merged.get_submodule(name).weight.data.masked_fill_(mask, 0.0)
    return merged.requires_grad_(), done  # the base was frozen under the adapters; from here on it is as trainable as any other


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


def _told(done: TrainResult, goal: Goal | None) -> dict[str, object]:
    """What the record says of a goal: how low, on how much text, and when it was reached, if it was."""
    if goal is None:
        return {}
    step, loss = done.checks[-1]
    return {
        "held_out_sequences": len(goal.ids),
        "target_loss": round(goal.loss, 6),
        "held_out_loss": [[at, round(value, 6)] for at, value in done.checks],
        "reached_loss": round(loss, 6),
        "reached_at_step": step if loss <= goal.loss else None,
    }
