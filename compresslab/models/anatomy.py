"""Where the parts of a causal language model are: its blocks, its MLPs, its output head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from compresslab.errors import RunFailed, UnsupportedModel
from compresslab.methods.method import Kind
from compresslab.methods.plain_linears import not_linear

# Routers and convolutions are a few hundredths of a model; fused experts are nearly all of it.
LARGEST_SHARE_OUTSIDE = 0.1
# The part of a backbone with the text model, and what architectures call its list of decoder layers.
TEXT_MODELS = ("language_model", "text_model", "decoder")
LISTS = ("layers", "h", "blocks")
GATED_MLP = ("gate_proj", "up_proj", "down_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def backbone(model: PreTrainedModel) -> Any:
    """The model without its output head: `base_model`, or `model` where the class names a part that it does not have (Llama 4)."""
    base = model.base_model
    inner = getattr(model, "model", None)
    return inner if base is model and isinstance(inner, nn.Module) else base


def text_model(model: PreTrainedModel) -> nn.Module:
    """The part of the backbone that has the decoder layers: of a model that also reads images or sound its language model."""
    whole = backbone(model)
    return next((part for name in TEXT_MODELS if isinstance(part := getattr(whole, name, None), nn.Module)), whole)


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder layers, in order.

    Raises:
        UnsupportedModel: the backbone has no such list under a known name.
    """
    text, name = text_model(model), layers_name(model)
    layers: nn.ModuleList = getattr(text, name)
    return layers


def layers_name(model: PreTrainedModel) -> str:
    """What the text model calls the list of its decoder layers. Raises UnsupportedModel like `decoder_layers`."""
    text, count = text_model(model), model.config.get_text_config().num_hidden_layers
    for name in LISTS:
        layers = getattr(text, name, None)
        if isinstance(layers, nn.ModuleList) and len(layers) == count:
            return name
    raise UnsupportedModel(
        f"{model.config.model_type}: no list of decoder layers at {type(text).__name__}.{LISTS[0]}; steps that go layer by layer need one"
    )


class GatedMLP(Protocol):
    """The attributes of an MLP that width pruning reads."""

    gate_proj: nn.Linear
    up_proj: nn.Linear
    down_proj: nn.Linear
    intermediate_size: int


def gated_mlps(model: PreTrainedModel) -> list[GatedMLP]:
    """The MLP of each block: gate, up and down projection, all plain linear layers.

    Raises:
        UnsupportedModel: a block has another kind of MLP (a mixture of experts, say); the message names it.
    """
    mlps = cast(list[GatedMLP], _with_plain_linears(model, "mlp", GATED_MLP))
    widths = {mlp.down_proj.in_features for mlp in mlps}
    if widths != {model.config.get_text_config().intermediate_size}:
        raise UnsupportedModel(
            f"{model.config.model_type}: width pruning needs one MLP width in every layer, since the config can state only one; "
            f"this model has {', '.join(map(str, sorted(widths)))}"
        )
    return mlps


class Attention(Protocol):
    """The attributes of an attention that width pruning reads."""

    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    o_proj: nn.Linear


def attentions(model: PreTrainedModel) -> list[Attention]:
    """The attention of each block: query, key, value and output projection, all plain linear layers of the sizes that the config states.

    Raises:
        UnsupportedModel: a block has another kind of attention (with query, key and value in one matrix, say); the message names it.
    """
    config = model.config.get_text_config()
    found = cast(list[Attention], _with_plain_linears(model, "self_attn", ATTENTION))
    heads, head = config.num_attention_heads, head_dimension(config)
    key_values = getattr(config, "num_key_value_heads", None) or heads
    for number, attention in enumerate(found):
        outputs = [getattr(attention, name).out_features for name in ("q_proj", "k_proj", "v_proj")]
        if outputs != [heads * head, key_values * head, key_values * head] or heads % key_values:
            raise UnsupportedModel(
                f"{model.config.model_type}: width pruning needs {heads} query heads and {key_values} key/value heads of {head} dimensions "
                f"in every layer, as the config states; q_proj, k_proj and v_proj of layer {number} have "
                f"{', '.join(map(str, outputs))} outputs"
            )
    return found


def _with_plain_linears(model: PreTrainedModel, part: str, names: tuple[str, ...]) -> list[nn.Module]:
    """The module `part` of each block, in which `names` are plain linear layers. Raises UnsupportedModel, with the module found instead."""
    found = []
    for number, layer in enumerate(decoder_layers(model)):
        module = getattr(layer, part, None)
        if module is None or not all(type(getattr(module, name, None)) is nn.Linear for name in names):
            kind = type(module).__name__ if module is not None else f"no module named {part}"
            raise UnsupportedModel(
                f"{model.config.model_type}: width pruning needs {', '.join(names)} as plain linear layers; layer {number} has {kind}"
            )
        found.append(module)
    return found


def head_dimension(config: PretrainedConfig) -> int:
    """Dimensions of an attention head: `head_dim`, or the hidden size divided by the number of heads."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def linear_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """The plain linear layers inside a module, by name within it."""
    return {name: linear for name, linear in module.named_modules() if type(linear) is nn.Linear}


def quantizable(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linear layers by name, without the output head, whose weight may be tied to the embedding, and without parts for other input
    than text.
    """
    head, text = model.get_output_embeddings(), {id(module) for module in text_model(model).modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and id(module) in text
    }


def kept_plain(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers that a library must leave alone besides the output head, with the head's; empty if there are none."""
    head, packed = model.get_output_embeddings(), quantizable(model)
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and name not in packed}
    return list(linears) if any(module is not head for module in linears.values()) else []


def check_linear(model: PreTrainedModel, method: str, kind: Kind = "quantize") -> None:
    """Refuse a model with a large share of its weights outside linear layers, which quantizing or pruning would hardly shrink.

    Args:
        method, kind: of the step, for the message.

    Raises:
        UnsupportedModel: the message names the modules that contain the other weights, such as fused experts.
    """
    inside, outside = 0, Counter[str]()
    for module in text_model(model).modules():
        if module is model.get_output_embeddings() or isinstance(module, nn.Embedding):
            continue
        size = sum(parameter.numel() for parameter in module.parameters(recurse=False) if parameter.dim() > 1)
        if type(module) is nn.Linear:
            inside += size
        elif size:
            outside[type(module).__name__] += size
    share = outside.total() / max(1, inside + outside.total())
    if share > LARGEST_SHARE_OUTSIDE:
        raise UnsupportedModel(not_linear(model.config.model_type, method, kind, outside.most_common(1)[0][0], share))


def output_head(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """The map from last hidden states (..., hidden) to logits (..., vocabulary), for losses that work chunk by chunk.

    Raises:
        UnsupportedModel: this architecture computes its logits in another way (checked on a probe).
        RunFailed: its logits are not finite.
    """
    linear = model.get_output_embeddings()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)

    def head(hidden: Tensor) -> Tensor:
        logits: Tensor = linear(hidden)
        return torch.tanh(logits / cap) * cap if cap else logits

    ids = torch.arange(8, device=model.device)[None]
    with torch.no_grad():
        logits_of_model = model(input_ids=ids, use_cache=False).logits
        logits_of_head = head(backbone(model)(input_ids=ids, use_cache=False).last_hidden_state)
    if not torch.isfinite(logits_of_model).all():
        raise RunFailed(f"{model.config.model_type}: the model's logits are not finite; it is broken")
    if not (logits_of_model.float() - logits_of_head.float()).abs().max() <= 1e-2 * logits_of_model.float().abs().max():
        raise UnsupportedModel(f"{model.config.model_type}: its logits are not its output embedding times the last hidden state")
    return head


def parameters_of(module: nn.Module) -> int:
    """Number of elements of all parameters; tied tensors count once."""
    return sum(parameter.numel() for parameter in module.parameters())
