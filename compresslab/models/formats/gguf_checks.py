"""What is refused of a GGUF file: claims that it cannot hold, and what transformers does not read of it.

transformers passes over fields and tensors that it does not know, without a word. The model that it makes then computes otherwise than the
file says: Llama 3.1 without its rope factors, a Llama with biases without them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor, dequantize
from transformers import PretrainedConfig, PreTrainedModel
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

from compresslab.errors import BadInput
from compresslab.inputs import Stamp
from compresslab.recipe.model_config import claim_problem, dimension_problem, text_sizes

# The fields of dimensions of GGUF files, after the name of the architecture.
GGUF_DIMENSIONS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "vocab_size": "vocab_size",
}
# Fields that transformers does not read for every architecture, and the setting that they state. What it has must be equal.
SETTINGS = {
    "attention.sliding_window": "sliding_window",
    "attention.scale": "attention_multiplier",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logit_scale",
    "use_parallel_residual": "use_parallel_residual",
    "expert_count": "num_local_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}
# The same of dimensions. A model without attention has 0 of its heads.
SIZES = {
    "feed_forward_length": "intermediate",
    "attention.head_count": "heads",
    "attention.head_count_kv": "key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
}
EPSILONS = ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
# Values of fields with which they change nothing. The base of Gemma 3's local attention is the same in all of its models.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "rope.scaling.type": ("none",),
    "rope.scaling.factor": (0.0, 1.0),
    "rope.scale_linear": (1.0,),
    "rope.scaling.attn_factor": (0.0, 1.0),
    "rope.freq_base_swa": (10000.0,),
    "attention.causal": (True,),
    "attention.max_alibi_bias": (0.0,),
    "attention.clamp_kqv": (0.0,),
    "ssm.dt_b_c_rms": (False,),
    "pooling_type": (0,),
    "feed_forward_length": (0,),
}
# How fields begin that change nothing by themselves. Those of YaRN do only with the type of a scaling, which is refused.
WITHOUT_EFFECT = (
    "tensor_data_layout",
    "vocab_size",
    "context_length",
    "rope.scaling.finetuned",
    "rope.scaling.original_",
    "rope.scaling.yarn_",
)
# The parts of the rotary embedding's frequencies by which they are divided.
ROPE_FACTORS = "rope_freqs.weight"
# transformers splits tensors of all experts of a layer into their own.
EXPERTS = "_exps."


def parsed(path: Path) -> GGUFReader:
    """A GGUF file, parsed once a process while its stamp stays: a vocabulary takes seconds."""
    stamp = Stamp.of(path.stat())
    return _parsed(str(path.resolve()), stamp) if stamp.settled else GGUFReader(path)


@functools.lru_cache(maxsize=1)
def _parsed(path: str, stamp: Stamp) -> GGUFReader:  # noqa: ARG001 # the stamp tells files apart
    return GGUFReader(path)


def check_claims_of_gguf(path: Path) -> None:
    """Refuse a GGUF file whose fields state dimensions that no model has, or for which its tensors are far too few."""
    reader = parsed(path)
    fields = {name.partition(".")[2]: field for name, field in reader.fields.items()}
    stated = {name: fields[field].contents() for name, field in GGUF_DIMENSIONS.items() if field in fields}
    # Some architectures state a number for each layer.
    config = {name: value for name, value in stated.items() if not isinstance(value, list)}
    if problem := dimension_problem(config) or claim_problem(config, len(reader.tensors), path.stat().st_size):
        raise BadInput(f"the GGUF file {path} is damaged: {problem}; download it again")


def check_dropped(path: Path, model: PreTrainedModel) -> None:
    """Refuse a GGUF file with a field or a tensor that decides what the model computes and that transformers did not read.

    Args:
        model: what transformers made of the file.

    Raises:
        BadInput: the message names the field with its value, or the tensor.
    """
    reader = parsed(path)
    dropped = next(_fields_dropped(reader, model), None) or next(_tensors_dropped(reader, model), None)
    if dropped:
        raise BadInput(
            f"the GGUF file {path} has {dropped}, which transformers does not read, so it would be another model; "
            "give the model's folder of safetensors"
        )


def _fields_dropped(reader: GGUFReader, model: PreTrainedModel) -> Iterator[str]:
    architecture = str(reader.fields["general.architecture"].contents())
    read: dict[str, Any] = next((fields for name, fields in GGUF_CONFIG_MAPPING.items() if _bare(name) == _bare(architecture)), {})
    for name, field in reader.fields.items():
        prefix, _, own = name.partition(".")
        if prefix != architecture or read.get(own) is not None or own.startswith(WITHOUT_EFFECT):
            continue
        if own.startswith("rope.scaling.") and _bare(architecture) == "gptoss":
            continue  # transformers reads these beside its table of fields
        value = field.contents()
        if value not in NEUTRAL.get(own, ()) and not _equal(value, _setting(model.config, own)):
            yield f"the field {name} = {value if isinstance(value, int | float | str) else 'a list'}"


def _tensors_dropped(reader: GGUFReader, model: PreTrainedModel) -> Iterator[str]:
    architecture = str(reader.fields["general.architecture"].contents())
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=model.config.to_dict())
    read = get_gguf_hf_weights_map(model, processor)
    for tensor in reader.tensors:
        if tensor.name not in read and EXPERTS not in tensor.name and not (tensor.name == ROPE_FACTORS and _all_ones(tensor)):
            yield f"the tensor {tensor.name}"


def _bare(name: str) -> str:
    return name.replace("-", "").replace("_", "")


def _equal(value: Any, setting: Any) -> bool:
    numbers = isinstance(value, int | float) and isinstance(setting, int | float)
    return math.isclose(value, setting, rel_tol=1e-6) if numbers else bool(value == setting)


def _setting(config: PretrainedConfig, field: str) -> Any:
    """What a configuration has in the place of a field; `None` if that is not known."""
    sizes = text_sizes(lambda name: getattr(config, name, None))
    rope = getattr(config, "rope_parameters", None) or {}
    if field == "attention.layer_norm_epsilon":
        return next((value for name in EPSILONS if (value := getattr(config, name, None)) is not None), None)
    if field == "rope.freq_base":
        return rope.get("rope_theta")
    if sizes is not None and field in SIZES:
        return getattr(sizes, SIZES[field])
    if sizes is not None and field == "rope.dimension_count":
        return int(sizes.head_dim * (rope.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0))
    return getattr(config, SETTINGS[field], None) if field in SETTINGS else None


def _all_ones(tensor: ReaderTensor) -> bool:
    return bool(np.all(dequantize(tensor.data, tensor.tensor_type) == 1))
