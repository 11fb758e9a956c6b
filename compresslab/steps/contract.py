"""The input and the result of every step, and the function that runs one."""

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
    """The input of a step besides the model.

    Attributes:
        text: token ids (sequences, length) for calibration or for training, as the method's registry entry states.
        other: another frozen model that the step reads: the teacher of `distill`, or the model whose loss is the goal of `until`.
        progress: receives progress reports.
        gathered: folder with data gathered for several steps (statistics, stored logits); without it, the step gathers them itself.
        checkpoints: folder for the checkpoints of a training step, from which it resumes; without it, none are written.
        compute: dtype of forward and backward passes; without it, the dtype of the model's weights.
    """

    text: TokenSequences | None = None
    other: Loaded | None = None
    progress: Progress = silent
    gathered: Path | None = None
    checkpoints: Path | None = None
    compute: torch.dtype | None = None

    def dtype(self, model: PreTrainedModel) -> torch.dtype:
        """The dtype of the passes of `model`."""
        return self.compute or model.dtype


def statistics_of(loaded: Loaded, context: Context, *, grams: bool = False) -> Statistics:
    """The model's statistics on the calibration text, read from `context.gathered` or gathered for this step.

    Args:
        grams: include the second moments of the linear layers' inputs.
    """
    if context.gathered is not None:
        return Statistics(context.gathered)
    assert context.text is not None
    with computing_temporarily(loaded.model, context.dtype(loaded.model)) as model:
        return gather_temporarily(model, context.text, grams=grams, progress=context.progress)


class StepResult(NamedTuple):
    """The result of a method: the model, the number of tokens it read, and details for the record.

    A method whose own code packs weights sets `packed`. The model's weights are plain then, and the files contain these tensors instead.
    """

    model: PreTrainedModel
    tokens_seen: int = 0
    calibration_tokens: int = 0
    details: Mapping[str, Any] = MappingProxyType({})
    packed: Packed | None = None


class Saved(NamedTuple):
    """A finished step: the model in memory, its record, and its logits and tensors' digest for the check in a fresh process."""

    loaded: Loaded
    record: StepRecord
    probe: torch.Tensor
    tensors: str


def run(kind: str, config: StepConfig, loaded: Loaded, context: Context, folder: Path) -> Saved:
    """Apply one step to a model in memory and save the result into `folder`.

    Methods may change the given model in place, so it must not be used afterwards.

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
    result = apply(loaded, config, context)
    after = Loaded(result.model.eval(), loaded.tokenizer, loaded.files)
    # This precedes any forward pass, since bitsandbytes repacks a 4-bit weight for the CPU at its first use, and a folder saved after that
    # is not loaded correctly.
    save(after, folder, result.packed)
    tensors = tensors_digest(after.model)
    data = {"text": context.text.sha256} if context.text else {}
    step_record = record(kind, config, folder, after, data, result)
    if entry.computes:
        step_record = step_record.model_copy(update={"compute": computed(compute, after.model.device)})
    computing(after.model, compute)
    return Saved(after, step_record, check_finite(after, f"{kind} {entry.name}"), tensors)


def refuse_packed(loaded: Loaded, what: str) -> None:
    """Refuse a model with packed weights, which cannot be pruned, trained or quantized.

    Raises:
        UnsupportedModel: the model's weights are packed.
    """
    quantization = quantization_in(loaded.model)
    if quantization is not None:
        packer = method_name(quantization)
        raise UnsupportedModel(f"{what}: the model's weights are packed already (by {packer}); start from plain ones")


def record(kind: str, config: StepConfig, folder: Path, loaded: Loaded, data: dict[str, str], result: StepResult) -> StepRecord:
    """The record of a saved step, with size and shape from the files. Must be called before the model's first forward pass."""
    plain = result.packed is not None or countable(folder)
    size = size_of(folder, loaded.model if plain else dequantized(folder, loaded).model)
    return StepRecord(
        kind=kind,
        method=config.method_name,
        config=config.model_dump(mode="json"),
        seed=getattr(config, "seed", 0),
        size=size,
        shape=shape_of(folder, size),
        tokens_seen=result.tokens_seen,
        calibration_tokens=result.calibration_tokens,
        data=data,
        details=dict(result.details),
    )
