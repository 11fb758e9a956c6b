"""Round-to-nearest quantization, stored in the compressed-tensors format that transformers and vLLM load."""

from __future__ import annotations

from compressed_tensors.compressors import ModelCompressor, compress_module
from compressed_tensors.config import CompressionFormat
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme, apply_quantization_config
from torch import nn

from compresslab.algorithms.round_to_nearest import symmetric_scales
from compresslab.methods.rtn import COMPRESSED_TENSORS, QuantizeRTN, packing
from compresslab.models.anatomy import check_linear, quantizable
from compresslab.models.load import Loaded
from compresslab.steps.checks import check_format
from compresslab.steps.contract import Context, StepResult


def apply(loaded: Loaded, config: QuantizeRTN, context: Context) -> StepResult:
    """Quantize every linear layer except the output head.

    Raises:
        BadInput: the group size does not divide a layer's input width; the message names sizes that do.
        UnsupportedModel: much of the model is in no linear layer.
    """
    model = loaded.model
    check_linear(model, "rtn")
    layers = quantizable(model)
    check_format(layers, COMPRESSED_TENSORS, packing(config), "rtn")
    scheme = QuantizationScheme(
        targets=["Linear"], weights=QuantizationArgs(num_bits=config.bits, group_size=config.group_size, strategy="group", symmetric=True)
    )
    ignored = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name not in layers]
    settings = QuantizationConfig(config_groups={"linear": scheme}, ignore=ignored, format="pack-quantized")
    apply_quantization_config(model, settings, show_progress=False)
    for number, layer in enumerate(layers.values()):
        layer.get_parameter("weight_scale").data.copy_(symmetric_scales(layer.weight.data, config.bits, config.group_size))
        # compressed-tensors divides in the weight's dtype; in bfloat16 one 8-bit weight in nine would get the wrong level.
        layer.weight.data = layer.weight.data.float()
        compress_module(layer, CompressionFormat.pack_quantized)
        context.progress((number + 1) / len(layers), f"rounding, matrix {number + 1} of {len(layers)}")
    # All layers are compressed, so this only adds the hook that unpacks the model at its first use.
    ModelCompressor.from_pretrained_model(model, quantization_format="pack-quantized").compress_model(model, skip_compressed=True)
    model.config.quantization_config = settings.model_dump(mode="json", exclude_none=True) | {"quantization_status": "compressed"}
    return StepResult(model)
