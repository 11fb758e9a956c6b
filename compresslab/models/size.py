"""Sizes and dimensions of a model, from its files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from compresslab.errors import BadInput
from compresslab.inputs import reason, safetensors_header
from compresslab.models.attention_layers import attention_layers
from compresslab.models.formats.reader import known_format, quantization_in, quantization_of, reader_of
from compresslab.models.lookups import lookups
from compresslab.records import Shape, Size

# Names in safetensors of floating-point dtypes of more than 16 bits.
WIDE = ("F32", "F64")


class StoredTensor(NamedTuple):
    """A tensor in a safetensors file: the format's name of its dtype ("F32", "BF16", "I32"), its number of elements, and its bytes."""

    dtype: str
    elements: int
    bytes: int


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors in the folder's safetensors files, from their headers.

    Raises:
        BadInput: the folder has no safetensors file.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BadInput(f"no safetensors file in {folder}")
    found: dict[str, StoredTensor] = {}
    for file in files:
        try:
            header = safetensors_header(file)
        except (OSError, ValueError) as error:
            raise BadInput(f"a weight file of {folder} is damaged: {file.name}: {reason(error)}") from error
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            found[name] = StoredTensor(entry["dtype"], math.prod(entry["shape"]), end - start)
    return found


def counted_bytes(tensors: dict[str, StoredTensor], skeleton: PreTrainedModel, *, packed: bool) -> dict[str, int]:
    """The bytes of each tensor that count for its bits. A plain weight counts at most 16 bits, since a wider copy has no more information.

    Args:
        skeleton: the model with plain weights. packed: whether some weights are packed; the tensors that belong to those (scales, maps)
            count with all their bytes.
    """
    plain = {name: parameter.numel() for name, parameter in skeleton.named_parameters()}
    return {
        name: min(stored.bytes, 2 * stored.elements)
        if stored.dtype in WIDE and (not packed or plain.get(name) == stored.elements)
        else stored.bytes
        for name, stored in tensors.items()
    }


def size_of(folder: Path, nonzero: int) -> Size:
    """Measure the size of a saved variant.

    Args:
        folder: the saved variant, whose stored bytes are counted. nonzero: its number of parameters that are not zero.
    """
    skeleton = plain_skeleton(folder)
    parameters = sum(p.numel() for p in skeleton.parameters())
    counted = parameters - sum(lookups(skeleton).values())
    tensors = stored_tensors(folder)
    counts = sum(counted_bytes(tensors, skeleton, packed=quantization_of(folder) is not None).values())
    return Size(
        parameters=parameters,
        counted=counted,
        active=counted - _idle_expert_parameters(skeleton),
        nonzero=nonzero,
        stored_bytes=sum(stored.bytes for stored in tensors.values()),
        effective_bits=8 * counts / parameters,
    )


def nonzero_of(model: PreTrainedModel) -> int:
    """Number of parameters that are not zero, of plain weights, or of packed ones in a format that counts in memory and not used yet."""
    reader = reader_of(quantization_in(model))
    return sum(int(torch.count_nonzero(reader.plain_weight(parameter))) for parameter in model.parameters())


def plain_skeleton(folder: Path) -> PreTrainedModel:
    """The model of a folder without weights and without quantized layers, for counting."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def shape_of(folder: Path, size: Size) -> Shape:
    """The dimensions that decide inference time. The weights' bits exclude tables that no product reads."""
    config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    quantization = quantization_of(folder)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(
        architecture=config.model_type,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        attention_width=head * config.num_attention_heads,
        key_value_width=head * (getattr(config, "num_key_value_heads", None) or config.num_attention_heads),
        vocabulary=config.vocab_size,
        weight_bits=_multiplied_bits(folder, size),
        weight_only=quantization is None or not known_format(quantization).rounds_inputs(quantization),
        experts=_first(config, "num_local_experts", "num_experts", "n_routed_experts"),
        experts_per_token=_first(config, "num_experts_per_tok"),
        attention=attention_layers(config),
    )


def _multiplied_bits(folder: Path, size: Size) -> float:
    """Mean stored bits of the parameters that products read."""
    if size.counted == size.parameters:
        return size.effective_bits
    skeleton = plain_skeleton(folder)
    counts = counted_bytes(stored_tensors(folder), skeleton, packed=quantization_of(folder) is not None)
    # No method packs a table, so one that the files name otherwise is plain.
    tables = sum(counts.get(name, 2 * elements) for name, elements in lookups(skeleton).items())
    return 8 * (sum(counts.values()) - tables) / size.counted


def _first(config: PretrainedConfig, *names: str) -> int:
    return next((int(value) for name in names if (value := getattr(config, name, None))), 0)


def _idle_expert_parameters(model: PreTrainedModel) -> int:
    """Parameters of the experts to which a token is not routed."""
    config = model.config.get_text_config()
    experts = _first(config, "num_local_experts", "num_experts", "n_routed_experts")
    per_token = _first(config, "num_experts_per_tok")
    if not experts or not per_token:
        return 0
    routed = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    return int(routed - routed * per_token // experts)
