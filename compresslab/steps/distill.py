"""Distillation: train a variant on its teacher's next-token distributions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from compresslab.algorithms.coarse import coarse_logits
from compresslab.algorithms.divergence import of_tokens
from compresslab.algorithms.forward_kl import forward_kl
from compresslab.algorithms.jensen_shannon import jensen_shannon
from compresslab.algorithms.next_token import next_token_loss
from compresslab.algorithms.reverse_kl import reverse_kl
from compresslab.algorithms.skewed_kl import skewed_kl
from compresslab.errors import BadInput
from compresslab.methods.distill import Distill
from compresslab.models.anatomy import backbone, output_head
from compresslab.models.calibration.stored_logits import StoredLogits, store_temporarily
from compresslab.models.computing import cast_back, stored_dtypes
from compresslab.models.documents.boundaries import ModelInput, refuse_crossing
from compresslab.models.load import Loaded
from compresslab.models.ranks import this_rank
from compresslab.models.text import TokenSequences
from compresslab.models.vocabulary import vocabulary_difference
from compresslab.steps.contract import Context, StepResult
from compresslab.steps.training.hidden_matching import HiddenMatching
from compresslab.steps.training.on_policy import check_prompt, continue_sequences, is_on_policy
from compresslab.steps.training.parallel import spread
from compresslab.steps.training.trainer import ChunkLoss, LossFn, MicroBatch, Objective, TrainSettings, train

# (student's logits, teacher's logits, temperature) -> summed divergence in nats
Divergence = Callable[[Tensor, Tensor, float], Tensor]


def apply(loaded: Loaded, config: Distill, context: Context) -> StepResult:
    """Minimize the divergence to the teacher over the training text.

    Raises:
        BadInput: the teacher has another vocabulary, the stored logits are for another text, or a setting does not suit the text.
    """
    assert context.text is not None
    dtype, dtypes, compute = loaded.model.dtype, stored_dtypes(loaded.model), context.dtype(loaded.model)
    matching = None
    details: dict[str, object] = {}
    if config.top_k is not None:
        stored = _stored(loaded, config.top_k, context, context.text)
        loss_fn = stored_logits_objective(stored, config)
        details["stored_bytes_per_token"] = stored.bytes_per_token
    else:
        assert context.other is not None
        same_vocabulary(loaded, context.other)
        if config.on_policy:
            check_prompt(config.prompt, context.text.ids.shape[1], bounded=context.text.bounded)
        matching = HiddenMatching(loaded.model, context.other.model) if config.hidden else None
        loss_fn = teacher_objective(loaded, context.other, config, matching, bounded=context.text.bounded)
    companions = (matching,) if matching is not None else ()
    settings = TrainSettings(
        config.optimizer,
        config.seed,
        context.progress,
        companions,
        context.checkpoints,
        config.model_dump_json(),
        compute=compute,
        activation_checkpointing=config.activation_checkpointing,
    )
    result = train(loaded.model, context.text, settings, loss_fn)
    return StepResult(
        cast_back(loaded.model, dtypes, dtype), tokens_seen=result.tokens, details={"steps": result.steps, "loss": result.losses, **details}
    )


def divergence_of(config: Distill) -> Divergence:
    """The divergence of the recipe, with its settings."""
    known: dict[str, Divergence] = {
        "forward-kl": forward_kl,
        "reverse-kl": reverse_kl,
        "jsd": partial(jensen_shannon, beta=config.beta),
        "skewed-kl": partial(skewed_kl, skew=config.skew),
    }
    return known[config.method]


def teacher_objective(student: Loaded, other: Loaded, config: Distill, matching: HiddenMatching | None, *, bounded: bool = False) -> LossFn:
    """The divergence to a teacher in memory, on the training text or on text that the student continues.

    Args:
        bounded: whether the documents of the text are kept apart.

    Raises:
        UnsupportedModel: the teacher does not keep documents apart.
    """
    teacher = other.model
    if bounded:
        refuse_crossing(teacher)
    passes = spread(teacher, teacher.dtype, this_rank())
    teacher_head = passes.look(lambda: output_head(teacher))
    # Models with the same tokenizer may pad their embeddings to different sizes.
    vocabulary = min(model.get_output_embeddings().weight.shape[0] for model in (student.model, teacher))
    divergence = divergence_of(config)

    @torch.no_grad()
    def objective(micro: MicroBatch) -> Objective:
        on_policy = is_on_policy(micro.step, config.on_policy)
        text = ModelInput(continue_sequences(student.model, micro.text.ids, config.prompt)) if on_policy else micro.text
        output = passes(lambda: backbone(teacher)(**text.arguments, output_hidden_states=matching is not None))
        # Position i - 1 predicts token i. These positions predict the tokens that the student generated.
        first, last = (config.prompt - 1, -1) if on_policy else (0, last_counted(text))
        hidden = text.counted(output.last_hidden_state, first, last)

        def chunk(logits: Tensor, part: slice) -> Tensor:
            with torch.no_grad():
                target = teacher_head(hidden[part])
            return divergence(of_tokens(logits, vocabulary), of_tokens(target, vocabulary), config.temperature)

        # Generated tokens are no targets of the next-token loss.
        mixed = chunk if on_policy else with_next_token_loss(chunk, config.cross_entropy, text)
        match = partial(_hidden_loss, matching, config.hidden, output.hidden_states) if matching is not None else None
        return Objective(text, mixed, first, last, match)

    return objective


def stored_logits_objective(stored: StoredLogits, config: Distill) -> LossFn:
    """The divergence to stored logits of a teacher, over its `top_k` tokens and one event for all others.

    It is a lower bound of the divergence over the whole vocabulary, by the data-processing inequality. The settings refuse a temperature
    other than 1, because the event of all others would be tempered as one token.
    """
    divergence = divergence_of(config)

    def objective(micro: MicroBatch) -> Objective:
        targets = stored.read(micro.numbers)
        text, device = micro.text, micro.text.ids.device
        last = last_counted(text)
        tokens, log_probabilities = (text.counted(values.to(device), last=last) for values in targets)

        def chunk(logits: Tensor, part: slice) -> Tensor:
            coarse = coarse_logits(of_tokens(logits, stored.vocabulary), tokens[part])
            return divergence(coarse, log_probabilities[part], 1.0)

        return Objective(text, with_next_token_loss(chunk, config.cross_entropy, text), last=last)

    return objective


def last_counted(text: ModelInput) -> int | None:
    """The end of the slice of positions at which the text's divergence counts: all, or where documents are kept apart all but the last.

    There, each position that counts has a next token. Their number differs from sequence to sequence, so no constant could weigh those with
    a next token against all.
    """
    return None if text.positions is None else -1


def with_next_token_loss(divergence: ChunkLoss, share: float, text: ModelInput) -> ChunkLoss:
    """The mean of the divergence and the next-token loss of the text (n, length), which has the weight `share`.

    The trainer divides sums by all positions that count. The last one of a sequence may have a divergence and no next token; the next-token
    loss is then weighted to be a mean over the others, as on held-out text.
    """
    if share == 0:
        return divergence
    last, length = last_counted(text), text.ids.shape[1]
    targets = text.counted(text.next_tokens().view_as(text.ids), last=last)
    weight = share * length / (length - 1) if last is None else share

    def chunk(logits: Tensor, part: slice) -> Tensor:
        return (1 - share) * divergence(logits, part) + weight * next_token_loss(logits, targets[part])

    return chunk


def same_vocabulary(student: Loaded, teacher: Loaded, name: str = "the teacher") -> None:
    """Refuse another model with a different vocabulary.

    Raises:
        BadInput: the message names the first difference.
    """
    if difference := vocabulary_difference(student, teacher):
        raise BadInput(f"{name} has another vocabulary ({difference}), so its logits mean other tokens; choose one of the same tokenizer")


def _stored(student: Loaded, top_k: int, context: Context, text: TokenSequences) -> StoredLogits:
    """The teacher's logits, read from `context.gathered` or stored for this step in a temporary folder."""
    if context.gathered is not None:
        stored = StoredLogits(context.gathered)
    else:
        assert context.other is not None
        same_vocabulary(student, context.other)
        stored = store_temporarily(context.other, text, top_k, lambda share, what, _=None: context.progress(0.0, f"{what}, {share:.0%}"))
    stored.check(student, text)
    return stored


def _hidden_loss(matching: HiddenMatching, weight: float, teacher: tuple[Tensor, ...], student: tuple[Tensor, ...]) -> Tensor:
    loss: Tensor = matching(student, teacher)
    return weight * loss
