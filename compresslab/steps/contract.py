"""What every step gets and gives, and the one way to run it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from compresslab.errors import UnsupportedModel
from compresslab.methods.registry import method_of
from compresslab.methods.settings import StepConfig
from compresslab.models.calibration.statistics import Statistics, gather_temporarily
from compresslab.models.computing import computing, computing_temporarily
from compresslab.models.device import computed
from compresslab.models.formats.dequantize import countable, dequantized
from compresslab.models.formats.reader import method_name, quantization_in
from compresslab.models.load import Loaded, check_finite
from compresslab.models.progress import Progress, silent
from compresslab.models.save import Packed, save, tensors_digest
from compresslab.models.size import shape_of, size_of
from compresslab.models.text import TokenSequences
from compresslab.records import StepRecord


class Context(NamedTuple):
    """What a step may need beside the model.

    Attributes:
        text: token ids (sequences, length) for calibration or for training, as the method's registry entry says.
        other: another model that the step looks at, frozen: the teacher that `distill` learns from, the one whose loss `until` names.
        progress: hears the share done, what is going on, and how much that is where it is known.
        gathered: folder with what was gathered for several steps (statistics, stored logits); without it a step gathers for itself.
        checkpoints: folder in which a training step keeps how far it has come, to go on from there; without it, it starts anew.
        compute: dtype of forward and backward passes; without it the dtype of the model's weights.
    """

    text: TokenSequences | None = None
    other: Loaded | None = None
    progress: Progress = silent
    gathered: Path | None = None
    checkpoints: Path | None = None
    compute: torch.dtype | None = None

    def dtype(self, model: PreTrainedModel) -> torch.dtype:
        """What the passes of `model` are computed in."""
        return self.compute or model.dtype


def statistics_of(loaded: Loaded, context: Context, *, grams: bool = False) -> Statistics:
    """The model's statistics on the calibration text: the ones that were gathered for all, or its own.

    Args:
        grams: with the second moments of the linear layers' inputs.
    """
    if context.gathered is not None:
        return Statistics(context.gathered)
    assert context.text is not None
    with computing_temporarily(loaded.model, context.dtype(loaded.model)) as model:
        return gather_temporarily(model, context.text, grams=grams, progress=context.progress)


class StepResult(NamedTuple):
    """What a method gives back: the model, how many tokens it read, and what it wants to tell.

    `packed` is for a method whose own code packs: then the model's weights are plain, and the files hold these tensors in their place.
    """

    model: PreTrainedModel
    tokens_seen: int = 0
    calibration_tokens: int = 0
    details: Mapping[str, Any] = MappingProxyType({})
    packed: Packed | None = None


class Saved(NamedTuple):
    """A finished step: the model in memory, its record, and for the check in a fresh process its logits and its tensors' digest."""

    loaded: Loaded
    record: StepRecord
    probe: torch.Tensor
    tensors: str


def run(kind: str, config: StepConfig, loaded: Loaded, context: Context, folder: Path) -> Saved:
    """Apply one step to a model in memory and save the result into `folder`.

    The model given is changed in place where the method allows it; do not use it afterwards.

    Raises:
        BadInput, UnsupportedModel: the method cannot do this to this model; nothing was written.
        RunFailed: the result has logits that are not finite.
    """
    entry = method_of(kind, config)
    if entry.kind != "adopt":
        refuse_packed(loaded, f"{kind} {entry.name}")
    compute = context.dtype(loaded.model)
    if entry.trains and compute == torch.float16:
        compute = torch.float32  # see `Compute.for_training`
    context = context._replace(compute=compute)
    apply: Callable[[Loaded, StepConfig, Context], StepResult] = importlib.import_module(entry.module).apply
    outcome = apply(loaded, config, context)
    after = Loaded(outcome.model.eval(), loaded.tokenizer, loaded.files)
    # Before any forward pass: bitsandbytes repacks a 4-bit weight for the CPU at its first use, and what is saved
    # after that loads as garbage.
    save(after, folder, outcome.packed)
    tensors = tensors_digest(after.model)
    data = {"text": context.text.sha256} if context.text else {}
    made = record(kind, config, folder, after, data, outcome)
    if entry.computes:
        made = made.model_copy(update={"compute": computed(compute, after.model.device)})
    computing(after.model, compute)
    return Saved(after, made, check_finite(after, f"{kind} {entry.name}"), tensors)


def refuse_packed(loaded: Loaded, what: str) -> None:
    """Only plain weights can be pruned, trained or quantized.

    Raises:
        UnsupportedModel: the model's weights are packed.
    """
    quantization = quantization_in(loaded.model)
    if quantization is not None:
        packer = method_name(quantization)
        raise UnsupportedModel(f"{what}: the model's weights are packed already (by {packer}); start from plain ones")


def record(kind: str, config: StepConfig, folder: Path, loaded: Loaded, data: dict[str, str], outcome: StepResult) -> StepRecord:
    """The record of a saved step, with size and shape counted from the files. To be made before the model is used."""
    plain = outcome.packed is not None or countable(folder)
    size = size_of(folder, loaded.model if plain else dequantized(folder, loaded).model)
    return StepRecord(
        kind=kind,
        method=config.method_name,
        config=config.model_dump(mode="json"),
        seed=getattr(config, "seed", 0),
        size=size,
        shape=shape_of(folder, size),
        tokens_seen=outcome.tokens_seen,
        calibration_tokens=outcome.calibration_tokens,
        data=data,
        details=dict(outcome.details),
    )
