"""Round-to-nearest quantization, stored in the compressed-tensors format that transformers and vLLM load."""

from __future__ import annotations

from collections.abc import Iterator

from compressed_tensors.compressors import ModelCompressor, compress_module, decompress_module
from compressed_tensors.config import CompressionFormat
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme, apply_quantization_config
from torch import nn

from compresslab.algorithms.round_to_nearest import symmetric_scales
from compresslab.methods.rtn import COMPRESSED_TENSORS, QuantizeRTN, packing
from compresslab.models.anatomy import quantizable
from compresslab.models.load import Loaded
from compresslab.steps.checks import check_format
from compresslab.steps.contract import Context, StepResult, layers_in_turn


def apply(loaded: Loaded, config: QuantizeRTN, context: Context) -> StepResult:
    """Quantize every linear layer except the output head.

    Raises:
        BadInput: the group size does not divide a layer's input width; the message names sizes that do.
    """
    model = loaded.model
    layers = quantizable(model)
    check_format(layers, COMPRESSED_TENSORS, packing(config), "rtn")
    scheme = QuantizationScheme(
        targets=["Linear"], weights=QuantizationArgs(num_bits=config.bits, group_size=config.group_size, strategy="group", symmetric=True)
    )
    ignored = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name not in layers]
    settings = QuantizationConfig(config_groups={"linear": scheme}, ignore=ignored, format="pack-quantized")
    done = 0
    for part in _parts(loaded, context):
        apply_quantization_config(part, settings, show_progress=False)
        for layer in part.modules():
            if not isinstance(layer, nn.Linear) or not hasattr(layer, "quantization_scheme"):
                continue
            layer.get_parameter("weight_scale").data.copy_(symmetric_scales(layer.weight.data, config.bits, config.group_size))
            # compressed-tensors divides in the weight's dtype; in bfloat16 one 8-bit weight in nine would get the wrong level.
            layer.weight.data = layer.weight.data.float()
            compress_module(layer, CompressionFormat.pack_quantized)
            done += 1
            context.progress(done / len(layers), f"rounding, matrix {done} of {len(layers)}")
    if loaded.weights is None:
        # All layers are compressed, so this only adds the hook that unpacks the model at its first use.
        ModelCompressor.from_pretrained_model(model, quantization_format="pack-quantized").compress_model(model, skip_compressed=True)
    model.config.quantization_config = settings.model_dump(mode="json", exclude_none=True) | {"quantization_status": "compressed"}
    return StepResult(model)


def _parts(loaded: Loaded, context: Context) -> Iterator[nn.Module]:
    """The model, or of one that is not in memory one decoder layer after the other; these have all linear layers but the head."""
    return iter([loaded.model]) if loaded.weights is None else layers_in_turn(loaded, context, unpack=_unpack)


def _unpack(part: nn.Module) -> None:
    for module in part.modules():
        decompress_module(module, leave_decompressed=False)
