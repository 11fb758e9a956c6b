"""GPTQ quantization, stored in the GPTQ checkpoint format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from compresslab.algorithms.gptq import Rounded, gptq
from compresslab.algorithms.grid import Grid
from compresslab.algorithms.hessian import inverse_factor
from compresslab.methods.gptq import GPTQ_FORMAT, QuantizeGPTQ, packing
from compresslab.models.anatomy import decoder_layers, linear_layers
from compresslab.models.calibration.statistics import Statistics
from compresslab.models.formats import gptq as gptq_format
from compresslab.models.load import Loaded
from compresslab.models.save import Packed
from compresslab.steps.checks import check_format, second_moments
from compresslab.steps.contract import Context, StepResult, layers_in_turn, statistics_of


@torch.no_grad()
def apply(loaded: Loaded, config: QuantizeGPTQ, context: Context) -> StepResult:
    """Quantize the linear layers inside the decoder layers, each by its inputs in the original model. Needs calibration text.

    Raises:
        BadInput: the group size, or the format's words of 32 bits, do not divide a layer; the message names sizes that do.
        RunFailed: the calibration's second moments cannot be inverted.
        UnsupportedModel: the list of layers is not known.
    """
    model = loaded.model
    layers = decoder_layers(model)
    inside = {f"layer {name}": linear for name, linear in linear_layers(layers).items()}
    check_format(inside, GPTQ_FORMAT, packing(config), "gptq")
    statistics = statistics_of(loaded, context, grams=True)
    prefix = next(name for name, module in model.named_modules() if module is layers)
    packed: dict[str, dict[str, Tensor]] = {}
    for number, layer in enumerate(layers_in_turn(loaded, context, packed)):
        linears = linear_layers(layer)
        for names in statistics.groups_sharing_sums(number):
            weights = [linears[name].weight for name in names]
            for name, rounded in zip(names, quantized(weights, statistics, config, number, names[0]), strict=True):
                linears[name].weight.copy_(rounded.weight().to(gptq_format.SCALES))
                packed[f"{prefix}.{number}.{name}"] = gptq_format.tensors_of(rounded, config.bits)
        context.progress((number + 1) / len(layers), f"rounding, layer {number + 1} of {len(layers)}")
    settings = gptq_format.settings(config.bits, config.group_size, symmetric=config.symmetric)
    return StepResult(model, calibration_tokens=statistics.tokens, packed=Packed(packed, settings))


def quantized(weights: Sequence[Tensor], statistics: Statistics, config: QuantizeGPTQ, layer: int, name: str) -> Iterator[Rounded]:
    """The rounded weights (outputs, inputs) of layers with the input of the linear layer `name`, as one matrix of independent rows.

    As in the authors' code, the weights of inputs that are zero on the whole text are set to zero first, so that no grid is wider for them.
    """
    device = weights[0].device
    order = None
    if config.activation_order:
        order = statistics.gram(layer, name).diagonal().to(device).argsort(descending=True, stable=True)
    with second_moments(f"quantize gptq, layer {layer}, {name}"):
        factor = inverse_factor(statistics.gram(layer, name).to(device), config.damping, order)
    silent = statistics.silent(layer, name).to(device)
    rounded = gptq(
        torch.cat(list(weights)).masked_fill_(silent, 0),
        factor,
        config.bits,
        config.group_size,
        gptq_format.SCALES,
        symmetric=config.symmetric,
        order=order,
    )
    start = 0
    for weight in weights:
        rows = slice(start, start := start + len(weight))
        yield Rounded(rounded.codes[rows], Grid(rounded.grid.scale[rows], rounded.grid.zero[rows]))
