"""Round-to-nearest quantization, stored in the compressed-tensors format that transformers and vLLM load."""

from __future__ import annotations

from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme, apply_quantization_config
from torch import nn
from transformers import PreTrainedModel

from compresslab.algorithms.round_to_nearest import symmetric_scales
from compresslab.errors import BadInput
from compresslab.models.load import Loaded
from compresslab.recipe.schema import QuantizeRTN
from compresslab.steps.contract import Context, Outcome


def apply(loaded: Loaded, config: QuantizeRTN, context: Context) -> Outcome:
    """Quantize every linear layer but the output head.

    Raises:
        BadInput: the group size does not divide a layer's input width; the message says which sizes do.
    """
    model = loaded.model
    layers = quantizable(model)
    check_groups(layers, config.group_size)
    scheme = QuantizationScheme(
        targets=["Linear"], weights=QuantizationArgs(num_bits=config.bits, group_size=config.group_size, strategy="group", symmetric=True)
    )
    ignored = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name not in layers]
    settings = QuantizationConfig(config_groups={"linear": scheme}, ignore=ignored, format="pack-quantized")
    apply_quantization_config(model, settings)
    for number, layer in enumerate(layers.values()):
        layer.get_parameter("weight_scale").data.copy_(symmetric_scales(layer.weight.data, config.bits, config.group_size))
        context.progress((number + 1) / len(layers), "rounding")
    ModelCompressor.from_pretrained_model(model, quantization_format="pack-quantized").compress_model(model)
    written = settings.model_dump(mode="json", exclude_none=True) | {"quantization_status": "compressed"}
    model.config.quantization_config = written
    return Outcome(model)


def quantizable(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linear layers by name, without the output head, which shares its weight with the embedding where tied."""
    head = model.get_output_embeddings()
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head}


def check_groups(layers: dict[str, nn.Linear], group_size: int) -> None:
    """Refuse a group size that leaves a remainder anywhere.

    Raises:
        BadInput: naming the first such layer and the sizes that divide every layer.
    """
    widths = {layer.in_features for layer in layers.values()}
    for name, layer in layers.items():
        if layer.in_features % group_size:
            fitting = [size for size in (16, 32, 64, 128, 256) if all(width % size == 0 for width in widths)]
            raise BadInput(
                f"quantize rtn: group_size {group_size} does not divide the {layer.in_features} inputs of {name}; "
                f"sizes that divide every layer: {', '.join(map(str, fitting)) or 'none of the usual ones'}"
            )
