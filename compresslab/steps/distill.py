"""Distillation: train a variant on its teacher's next-token distributions."""

from __future__ import annotations

import torch
from torch import Tensor

from compresslab.algorithms.forward_kl import forward_kl
from compresslab.errors import BadInput
from compresslab.models.anatomy import output_head
from compresslab.models.load import Loaded, cast
from compresslab.recipe.schema import Distill
from compresslab.steps.contract import Context, Outcome
from compresslab.steps.trainer import ChunkLoss, train


def apply(loaded: Loaded, config: Distill, context: Context) -> Outcome:
    """Minimise the forward KL to the teacher at `temperature` over the training text.

    Raises:
        BadInput: the teacher has another vocabulary.
    """
    assert context.text is not None
    assert context.teacher is not None
    same_vocabulary(loaded, context.teacher)
    teacher = context.teacher.model
    teach = output_head(teacher)
    dtype = loaded.model.dtype
    # Models of one tokenizer may pad their embeddings to different sizes; the padding is no token.
    shared = min(side.get_output_embeddings().weight.shape[0] for side in (loaded.model, teacher))

    def loss_of(micro: Tensor) -> ChunkLoss:
        with torch.no_grad():
            hidden = teacher.base_model(input_ids=micro, use_cache=False).last_hidden_state.flatten(0, 1)

        def chunk(logits: Tensor, part: slice) -> Tensor:
            with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
                target = teach(hidden[part])
            return forward_kl(logits[:, :shared], target[:, :shared], config.temperature)

        return chunk

    done = train(cast(loaded.model, torch.float32), context.text.ids, config.optimizer, config.seed, loss_of, context.progress)
    return Outcome(cast(loaded.model, dtype), tokens_seen=done.tokens, details={"steps": done.steps, "loss": done.losses})


def same_vocabulary(student: Loaded, teacher: Loaded) -> None:
    """Refuse a teacher whose token ids mean something else.

    Raises:
        BadInput: naming the first difference.
    """
    ours, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if ours == theirs:
        return
    example = next(iter(sorted(set(ours.items()) ^ set(theirs.items()), key=lambda entry: entry[1])))
    raise BadInput(
        f"the teacher has another vocabulary ({len(theirs)} tokens against {len(ours)}; "
        f"token {example[1]}, {example[0]!r}, is not in both), so its logits mean other tokens; choose a teacher of the same tokenizer"
    )
