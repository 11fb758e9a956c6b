"""Sizes and dimensions of a model, from its files."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from compresslab.errors import BadInput, RunFailed, UnsupportedModel
from compresslab.inputs import reason, safetensors_header
from compresslab.models.anatomy import parameters_of
from compresslab.models.counting.attention_layers import attention_layers
from compresslab.models.counting.lookups import lookups
from compresslab.models.formats.reader import known_format, quantization_in, quantization_of, reader_of
from compresslab.recipe.model_config import text_sizes
from compresslab.recipe.stored_weights import loaded_files
from compresslab.records import Shape, Size

# Fields with the number of routed experts, and of those that a token meets.
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
EXPERTS_PER_TOKEN = ("num_experts_per_tok", "moe_k", "moe_topk", "moe_top_k")
# A parameter of an expert that is a module of its own.
ONE_EXPERT = re.compile(r"\.experts\.\d+\.")
# Names in safetensors of floating-point dtypes of more than 16 bits.
WIDE = ("F32", "F64")


class StoredTensor(NamedTuple):
    """A tensor in a safetensors file: the format's name of its dtype ("F32", "BF16", "I32"), its number of elements, and its bytes."""

    dtype: str
    elements: int
    bytes: int


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors in the safetensors files that are loaded from a folder, from their headers.

    Raises:
        BadInput: the folder has no safetensors file.
    """
    files = loaded_files(folder)
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
    # A buffer in a file (MiniMax's decays, a router's corrections) is no parameter, so its bytes are none of the parameters' bits.
    tensors = {name: tensors[name] for name in tensors.keys() - {name for name, _ in skeleton.named_buffers()}}
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

    Raises:
        RunFailed: the files hold other plain weights than the model that the configuration describes, or fewer than are not zero.
        UnsupportedModel: the model has experts, and its configuration does not say how many of them a token meets.
    """
    skeleton = plain_skeleton(folder)
    parameters = parameters_of(skeleton)
    counted = parameters - sum(lookups(skeleton).values())
    tensors = stored_tensors(folder)
    stored_elements = sum(stored.elements for stored in tensors.values())
    if quantization_of(folder) is None and stored_elements != saved_elements(skeleton):
        raise RunFailed(
            f"{folder}: its files hold {stored_elements:,} values, and the model of its configuration has {saved_elements(skeleton):,}; "
            "its parameters cannot be counted"
        )
    if nonzero > parameters:
        raise RunFailed(f"{folder}: {nonzero:,} of its weights are not zero, and it has {parameters:,} parameters; they cannot be counted")
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
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def shape_of(folder: Path, size: Size) -> Shape:
    """The dimensions that decide inference time. The weights' bits exclude tables that no product reads."""
    config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).get_text_config()
    quantization = quantization_of(folder)
    sizes = text_sizes(lambda name: getattr(config, name, None))
    if sizes is None:
        raise UnsupportedModel(
            f"{config.model_type}: its configuration states its hidden size, its layers or its attention heads under no known name, so its "
            "inference time cannot be modelled; studies take causal language models that state them"
        )
    experts, per_token = _experts(config)
    return Shape(
        architecture=config.model_type,
        layers=sizes.layers,
        hidden=sizes.hidden,
        intermediate=sizes.intermediate,
        attention_width=sizes.head_dim * sizes.heads,
        key_value_width=sizes.head_dim * sizes.key_value_heads,
        vocabulary=sizes.vocabulary,
        weight_bits=_multiplied_bits(folder, size),
        weight_only=quantization is None or not known_format(quantization).rounds_inputs(quantization),
        experts=experts,
        experts_per_token=per_token,
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


def saved_elements(model: PreTrainedModel) -> int:
    """The elements of all tensors that are saved of a model with plain weights: parameters and buffers, a tied one once."""
    kept = model.state_dict().keys()
    buffers = [buffer for name, buffer in model.named_buffers() if name in kept]
    return parameters_of(model) + sum(map(torch.numel, buffers))


def _experts(config: PretrainedConfig) -> tuple[int, int]:
    """The routed experts of a layer and how many of them a token meets; 0 and 0 for a dense model."""
    # DBRX states them in a part of their own.
    parts = [config, *filter(None, [getattr(config, "ffn_config", None)])]
    stated = [[getattr(part, name, None) for part in parts for name in names] for names in (EXPERTS, EXPERTS_PER_TOKEN)]
    experts, per_token = (next((int(value) for value in values if isinstance(value, int) and value), 0) for values in stated)
    return experts, per_token


def _idle_expert_parameters(model: PreTrainedModel) -> int:
    """Parameters of the experts to which a token is not routed."""
    config = model.config.get_text_config()
    experts, per_token = _experts(config)
    routed: int = sum(p.numel() for name, p in model.named_parameters() if _of_an_expert(name, p, experts))
    if routed and not (experts and per_token):
        raise UnsupportedModel(f"{config.model_type}: its configuration does not say how many of its experts a token meets")
    return routed - routed * per_token // experts if routed else 0


def _of_an_expert(name: str, parameter: torch.nn.Parameter, experts: int) -> bool:
    """Whether a parameter belongs to routed experts: to one of them, or to all of a layer in one tensor.

    JetMoE's tensors have the experts as their first dimension, under any name. The mixture in its attention is called `experts`, too,
    and has a router and one bias for all experts.
    """
    if parameter.dim() == 3 and len(parameter) == experts:
        return True
    return ONE_EXPERT.search(name) is not None or (".experts." in name and ".router." not in name and parameter.dim() > 1)
