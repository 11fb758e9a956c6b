"""A quantizer of another package, in one file: what the plan must know of it, its code, and how its format is read.

What it stores: for each linear layer `codes`, int8 (outputs, inputs), and `scale`, float16 (outputs, 1).
"""

from __future__ import annotations

from typing import Any, Literal

from compresslab.methods.format import Format, Packing, Quantization
from compresslab.methods.method import Method
from compresslab.methods.settings import StepConfig

TENSORS = ("codes", "scale")


class QuantizeCoarse(StepConfig):
    """Round each row to `levels` levels on either side of zero."""

    method: Literal["coarse"]
    levels: Literal[7, 127] = 127


def kernel(_: Quantization) -> str:
    return "a product with rows of int8, by the throw-away package"


def packing(_: QuantizeCoarse) -> Packing:
    return Packing(8)


METHOD = Method(
    "quantize",
    "coarse",
    QuantizeCoarse,
    "throwaway_quantizer",
    format=Format("coarse-rows", "throwaway_quantizer", kernel=kernel, multiple=32),
    packing=packing,
)


def apply(loaded: Any, config: QuantizeCoarse, context: Any) -> Any:
    """What a worker calls."""
    import torch

    from compresslab.models.anatomy import quantizable
    from compresslab.models.save import Packed
    from compresslab.steps.checks import check_format
    from compresslab.steps.contract import StepResult

    layers = quantizable(loaded.model)
    check_format(layers, METHOD.format, packing(config), config.method)
    packed = {}
    for name, layer in layers.items():
        scale = (layer.weight.data.float().abs().amax(1, keepdim=True) / config.levels).to(torch.float16)
        codes = (layer.weight.data.float() / scale.float()).round().clamp(-config.levels, config.levels).to(torch.int8)
        packed[name] = {"codes": codes, "scale": scale}
        layer.weight.data = weight_of(packed[name]).to(layer.weight.dtype)
    context.progress(1.0, "rounded")
    return StepResult(loaded.model, packed=Packed(packed, {"quant_method": "coarse-rows"}))


def weight_of(tensors: dict[str, Any]) -> Any:
    return tensors["codes"].float() * tensors["scale"].float()


def reader() -> Any:
    """How the format is read; transformers learns it here, too."""
    import torch
    from transformers.quantizers.auto import register_quantization_config, register_quantizer
    from transformers.quantizers.base import HfQuantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin

    from compresslab.models.formats.own_tensors import unpacked_model
    from compresslab.models.formats.reader import Reader

    class Rows(torch.nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.register_buffer("codes", torch.empty(outputs, inputs, dtype=torch.int8))
            self.register_buffer("scale", torch.empty(outputs, 1, dtype=torch.float16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(x, weight_of(self._buffers).to(x.dtype))

    @register_quantization_config("coarse-rows")
    class RowsConfig(QuantizationConfigMixin):
        def __init__(self, quant_method: str = "coarse-rows") -> None:
            self.quant_method = quant_method

    @register_quantizer("coarse-rows")
    class RowsQuantizer(HfQuantizer):
        requires_calibration = True
        is_trainable = False

        def is_serializable(self) -> bool:
            return True

        def _process_model_before_weight_loading(self, model: Any, **_: object) -> None:
            for name, module in list(model.named_modules()):
                if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings():
                    model.set_submodule(name, Rows(module.in_features, module.out_features))

    class RowsReader(Reader):
        def plain_model(self, folder: Any, device: Any) -> Any:
            return unpacked_model(folder, TENSORS, weight_of, device)

        def tensors(self, model: Any) -> dict[str, Any]:
            found = super().tensors(model)
            for layer in [name.removesuffix(".codes") for name in found if name.endswith(".codes")]:
                found[f"{layer}.weight"] = weight_of({name: found.pop(f"{layer}.{name}") for name in TENSORS}).to(model.dtype)
            return found

    return RowsReader()
