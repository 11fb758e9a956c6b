"""torchao's weight-only quantization: int8 with one scale per row, int4 in groups."""

from __future__ import annotations

from transformers import TorchAoConfig

from compresslab.errors import UnsupportedModel
from compresslab.methods.torchao import TORCHAO, QuantizeTorchAO, packing
from compresslab.models.anatomy import kept_plain, quantizable
from compresslab.models.load import Loaded
from compresslab.steps.checks import check_format
from compresslab.steps.contract import Context, StepResult
from compresslab.steps.quantize_on_load import quantized_by_loading


def apply(loaded: Loaded, config: QuantizeTorchAO, context: Context) -> StepResult:
    """Quantize every linear layer except the output head.

    Raises:
        BadInput: the group size does not divide a layer's input width; the message names sizes that do.
        UnsupportedModel: int4 is used without a GPU, for which torchao has no kernel.
    """
    check_format(quantizable(loaded.model), TORCHAO, packing(config), config.method)
    if config.method == "torchao-int4" and loaded.model.device.type == "cpu":
        raise UnsupportedModel("torchao-int4: torchao packs int4 weights on a GPU only; on a processor take gptq, awq, rtn or bnb-nf4")
    context.progress(0.0, config.method)
    return StepResult(quantized_by_loading(loaded, settings(config, kept_plain(loaded.model))))


def settings(config: QuantizeTorchAO, plain: list[str] | None = None) -> TorchAoConfig:
    """The recipe's settings as torchao's config. `plain`: the layers that stay plain, if they are more than the output head."""
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    if config.method == "torchao-int8":
        return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=plain or None)
    packing_config = Int4WeightOnlyConfig(group_size=config.group_size, int4_packing_format="tile_packed_to_4d")
    return TorchAoConfig(packing_config, modules_to_not_convert=plain or None)
