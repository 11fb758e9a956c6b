"""The input and the result of every step, and the function that runs one."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from compresslab.errors import UnsupportedModel, out_of_memory
from compresslab.methods.method import Method
from compresslab.methods.registry import method_of
from compresslab.methods.settings import StepConfig
from compresslab.models.anatomy import check_linear, decoder_layers
from compresslab.models.calibration.statistics import Statistics, gather_temporarily
from compresslab.models.computing import computing, computing_temporarily
from compresslab.models.counting.size import nonzero_of, shape_of, size_of
from compresslab.models.device import computed
from compresslab.models.formats.dequantize import countable, dequantized
from compresslab.models.formats.reader import method_name, quantization_in
from compresslab.models.load import Loaded, check_finite, refuse_infinite
from compresslab.models.progress import Progress, silent
from compresslab.models.save import Packed, PackedTensors, save
from compresslab.models.streamed.digests import tensor_digests
from compresslab.models.streamed.result import Result
from compresslab.models.text import TokenSequences
from compresslab.models.vocabulary import check_readable
from compresslab.records import Counted, StepRecord
from compresslab.steps.outcome.check import Said, counted


class Context(NamedTuple):
    """The input of a step besides the model.

    Attributes:
        text: token ids (sequences, length) for calibration or for training, as the method's registry entry states.
        other: another frozen model that the step reads: the teacher of `distill`, or the model whose loss is the goal of `until`.
        progress: receives progress reports.
        gathered: folder with data gathered for several steps (statistics, stored logits); without it, the step gathers them itself.
        checkpoints: folder for the checkpoints of a training step, from which it resumes; without it, none are written.
        compute: dtype of forward and backward passes; without it, the dtype of the model's weights.
        result: where the layers of a model go that is not in memory; `run` sets it.
        parent: folder of the model before the step, with which the result is compared; without it, only the result itself is checked.
    """

    text: TokenSequences | None = None
    other: Loaded | None = None
    progress: Progress = silent
    gathered: Path | None = None
    checkpoints: Path | None = None
    compute: torch.dtype | None = None
    result: Result | None = None
    parent: Path | None = None

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
    with computing_temporarily(loaded.model, context.dtype(loaded.model)):
        return gather_temporarily(loaded, context.text, grams=grams, progress=context.progress)


def layers_in_turn(
    loaded: Loaded, context: Context, packed: PackedTensors | None = None, unpack: Callable[[nn.Module], None] | None = None
) -> Iterator[nn.Module]:
    """The decoder layers in order, each with its weights in memory until the next one is asked for.

    A layer of a model that is not in memory is written when the next one is asked for, and must not be changed afterwards.

    Args:
        packed, unpack: as in `Result.layers`; of a model in memory, `packed` keeps all tensors.
    """
    if context.result is None:
        return iter(decoder_layers(loaded.model))
    return context.result.layers(packed, unpack)


class StepResult(NamedTuple):
    """The result of a method: the model, the number of tokens it read, and details for the record.

    A method whose own code packs weights sets `packed`. The model's weights are plain then, and the files contain these tensors instead.
    One that leaves linear layers alone says so in `left_alone`: why, by the name of a layer or of a module around it.
    """

    model: PreTrainedModel
    tokens_seen: int = 0
    calibration_tokens: int = 0
    details: Mapping[str, Any] = MappingProxyType({})
    packed: Packed | None = None
    left_alone: Mapping[str, str] = MappingProxyType({})


class Saved(NamedTuple):
    """A finished step: the model, its record, and its logits and the digests of its tensors for the check in a fresh process.

    A model that was not in memory is not usable afterwards; its folder is.
    """

    loaded: Loaded
    record: StepRecord
    probe: torch.Tensor
    tensors: dict[str, str]


def run(kind: str, config: StepConfig, loaded: Loaded, context: Context, folder: Path) -> Saved:
    """Apply one step to a model and save the result into `folder`.

    Methods may change the given model in place, so it must not be used afterwards. A model that is not in memory must be given to a method
    that takes one layer after the other (`Method.layerwise`).

    Raises:
        BadInput, UnsupportedModel: the method cannot do this to this model; nothing was written.
        RunFailed: the result has logits that are not finite, or its files are not what the settings ask.
    """
    entry = method_of(kind, config)
    if entry.kind != "adopt":
        refuse_packed(loaded, f"{kind} {entry.name}")
    if entry.plain_linears:
        check_linear(loaded.model, entry.name, entry.kind)
    if context.text is not None and context.other is not None:
        check_readable(context.text, context.other, "the text", f"the other model that {kind} {entry.name} reads")
    compute = context.dtype(loaded.model)
    if entry.trains and compute == torch.float16:
        compute = torch.float32  # see `Compute.for_training`
    result_by_layers = Result(loaded, folder, compute) if loaded.weights is not None else None
    context = context._replace(compute=compute, result=result_by_layers)
    apply: Callable[[Loaded, StepConfig, Context], StepResult] = importlib.import_module(entry.module).apply
    result = apply(loaded, config, context)
    if result_by_layers is not None:
        return _saved_by_layers(kind, config, loaded, context, folder, result)
    after = Loaded(result.model.eval(), loaded.tokenizer, loaded.files)
    # This precedes any forward pass, since bitsandbytes repacks a 4-bit weight for the CPU at its first use, and a folder saved after that
    # is not loaded correctly.
    save(after, folder, result.packed)
    tensors = tensor_digests(after.model)
    plain = result.packed is not None or countable(folder)
    nonzero = nonzero_of(after.model if plain else dequantized(folder, after).model)
    step_record = record(kind, config, folder, nonzero, context, result, after.device)
    computing(after.model, compute)
    try:
        logits = check_finite(after, f"{kind} {entry.name}")
    except (RuntimeError, TypeError) as error:  # of a kernel; some architectures use a matrix otherwise than as a linear layer
        if not entry.packs or out_of_memory(error):
            raise
        architecture = after.model.config.model_type
        raise UnsupportedModel(f"{architecture}: it does not compute with weights packed by {entry.name} ({error})") from error
    return Saved(after, step_record, logits, tensors)


def _saved_by_layers(kind: str, config: StepConfig, loaded: Loaded, context: Context, folder: Path, result: StepResult) -> Saved:
    """Finish a step whose method has written the layers."""
    written = context.result
    assert written is not None
    logits = written.finish(result.packed)
    refuse_infinite(logits, f"{kind} {method_of(kind, config).name}")
    return Saved(loaded, record(kind, config, folder, written.nonzero, context, result, loaded.device), logits, written.digests)


def refuse_packed(loaded: Loaded, what: str) -> None:
    """Refuse a model with packed weights, which cannot be pruned, trained or quantized.

    Raises:
        UnsupportedModel: the model's weights are packed.
    """
    quantization = quantization_in(loaded.model)
    if quantization is not None:
        packer = method_name(quantization)
        raise UnsupportedModel(f"{what}: the model's weights are packed already (by {packer}); start from plain ones")


def record(
    kind: str, config: StepConfig, folder: Path, nonzero: int, context: Context, result: StepResult, device: torch.device
) -> StepRecord:
    """The record of a saved step, with size and shape from the files."""
    size = size_of(folder, nonzero)
    assert context.compute is not None
    entry = method_of(kind, config)
    compute = {"compute": computed(context.compute, device)} if entry.computes else {}
    return StepRecord(
        kind=kind,
        method=config.method_name,
        config=config.model_dump(mode="json"),
        seed=getattr(config, "seed", 0),
        size=size,
        shape=shape_of(folder, size),
        tokens_seen=result.tokens_seen,
        calibration_tokens=result.calibration_tokens,
        data={"text": context.text.sha256} if context.text else {},
        details=dict(result.details),
        counted=_counted(entry, config, folder, context, result),
        **compute,
    )


def _counted(entry: Method[Any], config: StepConfig, folder: Path, context: Context, result: StepResult) -> Counted | None:
    """What the files hold, held against the settings; nothing is asked of an adopted model."""
    if entry.kind == "adopt":
        return None
    return counted(entry, config, folder, context.parent, Said(result.tokens_seen, result.details, result.left_alone))
