"""Retraining: continues training on plain text, of all weights or of low-rank adapters that are merged at the end."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compresslab.algorithms.next_token import next_token_loss
from compresslab.errors import UnsupportedModel
from compresslab.methods.retrain import RetrainFull, RetrainLoRA
from compresslab.models.computing import cast_back, stored_dtypes
from compresslab.models.documents.boundaries import refuse_crossing
from compresslab.models.load import Loaded, cast
from compresslab.models.ranks import this_rank
from compresslab.models.text import TokenSequences
from compresslab.steps.contract import Context, StepResult
from compresslab.steps.distill import same_vocabulary
from compresslab.steps.training.held_out import Goal, mean_loss, split
from compresslab.steps.training.parallel import spread
from compresslab.steps.training.sparsity import pruned_zeros
from compresslab.steps.training.trainer import MicroBatch, Objective, TrainResult, TrainSettings, train


def apply(loaded: Loaded, config: RetrainFull | RetrainLoRA, context: Context) -> StepResult:
    """Minimize the cross-entropy of the next token over the training text, or until it is as low as another model's.

    With `until`, the last of the different sequences are held out of training, and the loss on them is compared. A run that stops before
    its last step omits the rest of the schedule, including the decay.

    Raises:
        BadInput: there is too little text; the other model has another vocabulary; bitsandbytes cannot store a layer at 4 bits (`qlora`).
    """
    assert context.text is not None
    dtype, dtypes, compute = loaded.model.dtype, stored_dtypes(loaded.model), context.dtype(loaded.model)
    text, goal = context.text, None
    if config.until is not None:
        assert context.other is not None
        same_vocabulary(loaded, context.other, config.until)
        text, held_out = split(text)
        if text.bounded:
            refuse_crossing(context.other.model)
        context.progress(0.0, f"the loss of {config.until} on {len(held_out.ids)} held-out sequences")
        other, ranks = context.other.model, this_rank()
        goal = Goal(spread(other, other.dtype, ranks).look(lambda: mean_loss(other, held_out, ranks)), held_out)
    settings = TrainSettings(
        config.optimizer,
        config.seed,
        context.progress,
        checkpoints=context.checkpoints,
        config=config.model_dump_json(),
        goal=goal,
        compute=compute,
        activation_checkpointing=config.activation_checkpointing,
    )
    if isinstance(config, RetrainFull):
        model, result = loaded.model, train(loaded.model, text, settings, language_modelling)
    else:
        model, result = _train_adapters(loaded.model, config, text, settings)
    return StepResult(
        cast_back(model, dtypes, dtype),
        tokens_seen=result.tokens,
        details={"steps": result.steps, "loss": result.losses, **_goal_details(result, goal)},
    )


def language_modelling(micro: MicroBatch) -> Objective:
    """The next-token loss of the text itself, over the positions that have a next token, as on held-out text."""
    targets = micro.text.counted(micro.text.ids.roll(-1, 1), last=-1)

    def chunk(logits: Tensor, part: slice) -> Tensor:
        return next_token_loss(logits, targets[part])

    return Objective(micro.text, chunk, last=-1)


def _train_adapters(
    model: PreTrainedModel, config: RetrainLoRA, text: TokenSequences, settings: TrainSettings
) -> tuple[PreTrainedModel, TrainResult]:
    """Train adapters and merge them in float32; zeros of a pruned model stay."""
    zeros = pruned_zeros(model)
    if config.method == "qlora":
        from compresslab.steps.training.four_bits import merge_unpacked, quantize_for_adapters

        quantize_for_adapters(model, settings.compute)
        adapted = with_adapters(model, config)
        result = train(model, text, settings, language_modelling)
        merged = merge_unpacked(adapted)
    else:
        adapted = with_adapters(model, config)
        result = train(model, text, settings, language_modelling)
        merged = cast(adapted, torch.float32).merge_and_unload()
    for name, mask in zeros.items():  # merging adds the adapters to all weights, including pruned ones
        merged.get_submodule(name).weight.data.masked_fill_(mask, 0.0)
    return merged.requires_grad_(), result  # the base was frozen while the adapters were trained


def with_adapters(model: PreTrainedModel, config: RetrainLoRA) -> PreTrainedModel:
    """Add LoRA adapters to every linear layer of the decoder layers, in place, and freeze all other weights.

    Source: Hu et al. 2021, "LoRA", arXiv 2106.09685, as peft implements it.

    Raises:
        UnsupportedModel: peft does not adapt this architecture.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(config.seed)
    lora = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    try:
        return get_peft_model(model, lora)
    except ValueError as error:  # peft refuses some architectures, such as Mamba
        raise UnsupportedModel(f"{model.config.model_type}: peft adds no adapters to this architecture ({error})") from error


def _goal_details(result: TrainResult, goal: Goal | None) -> dict[str, object]:
    """Details for the record on a goal: the target loss, the number of sequences, the losses, and the step that reached it."""
    if goal is None:
        return {}
    step, loss = result.checks[-1]
    return {
        "held_out_sequences": len(goal.text.ids),
        "target_loss": round(goal.loss, 6),
        "held_out_loss": [[at_step, round(value, 6)] for at_step, value in result.checks],
        "reached_loss": round(loss, 6),
        "reached_at_step": step if loss <= goal.loss else None,
    }
