"""AWQ quantization, stored in the AWQ checkpoint format."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.awq import AWQ_SCALES_MAPPINGS

from compresslab.algorithms.awq import channel_scales, clipped
from compresslab.algorithms.gptq import Rounded
from compresslab.algorithms.grid import Grid, grid_of
from compresslab.errors import UnsupportedModel
from compresslab.methods.awq import AWQ_FORMAT, BITS, QuantizeAWQ, packing
from compresslab.models.anatomy import decoder_layers, linear_layers
from compresslab.models.calibration.statistics import Statistics
from compresslab.models.formats import awq as awq_format
from compresslab.models.load import Loaded
from compresslab.models.save import Packed
from compresslab.models.surgery.folding import check_folding, divide_inputs
from compresslab.steps.checks import check_format
from compresslab.steps.contract import Context, StepResult, layers_in_turn, statistics_of

# Clipping the range of queries and keys by the error of their own outputs does harm in their product (Lin et al., section 4).
FULL_RANGE = ("q_proj", "k_proj", "qkv_proj", "query_key_value")


@torch.no_grad()
def apply(loaded: Loaded, config: QuantizeAWQ, context: Context) -> StepResult:
    """Quantize the linear layers inside the decoder layers to 4 bits, each by its inputs in the original model. Needs calibration text.

    Raises:
        BadInput: the group size, or the format's words of 32 bits, do not divide a layer; the message names sizes that do.
        UnsupportedModel: the list of layers is not known, or scales cannot be folded.
    """
    model = loaded.model
    check_loader(model)
    layers = decoder_layers(model)
    inside = {f"layer {name}": linear for name, linear in linear_layers(layers).items()}
    check_format(inside, AWQ_FORMAT, packing(config), "awq")
    check_folding(loaded)
    statistics = statistics_of(loaded, context, grams=True)
    prefix = next(name for name, module in model.named_modules() if module is layers)
    packed: dict[str, dict[str, Tensor]] = {}
    scales: dict[str, Tensor] = {}
    exponents: list[dict[str, float | None]] = []
    for number, layer in enumerate(layers_in_turn(loaded, context, packed)):
        linears = linear_layers(layer)
        for linear in linears.values():
            linear.weight.data = linear.weight.data.float()
        chosen: dict[str, float | None] = {}
        for names in statistics.groups_sharing_inputs(number):
            scale, exponent = fold_scales(layer, names, statistics, number, config.group_size)
            chosen[names[0]] = exponent
            scales |= {f"{number}.{name}": scale for name in names}
        for name, linear in linears.items():
            gram = statistics.gram(number, name).to(linear.weight.device) / scales[f"{number}.{name}"].outer(scales[f"{number}.{name}"])
            codes = rounded(linear.weight, gram, config.group_size, full_range=name.endswith(FULL_RANGE))
            packed[f"{prefix}.{number}.{name}"] = awq_format.tensors_of(codes)
            linear.weight.data = codes.weight().to(awq_format.SCALES).to(model.dtype)
        exponents.append(chosen)
        context.progress((number + 1) / len(layers), f"scaling and rounding, layer {number + 1} of {len(layers)}")
    settings = awq_format.settings(config.group_size)
    return StepResult(model, calibration_tokens=statistics.tokens, details={"exponents": exponents}, packed=Packed(packed, settings))


def check_loader(model: PreTrainedModel) -> None:
    """Refuse architectures for which transformers' loader adds other modules than AWQ layers to an AWQ model.

    Raises:
        UnsupportedModel: the message names the architecture.
    """
    if model.config.model_type in AWQ_SCALES_MAPPINGS:
        raise UnsupportedModel(
            f"{model.config.model_type}: transformers' AWQ loader puts scales of its own behind this architecture's activation functions, "
            "which this method does not make; take gptq or rtn"
        )


def fold_scales(layer: nn.Module, names: list[str], statistics: Statistics, number: int, group_size: int) -> tuple[Tensor, float | None]:
    """Multiply the weights of the linear layers `names` by the best scales for rounding, and divide their inputs in the module before.

    Returns:
        The scales (inputs,) and the chosen exponent, 0 if no scale has a smaller error. All 1 and `None` if no module before can divide.
    """
    linears = linear_layers(layer)
    weights = [linears[name].weight for name in names]
    grams = [statistics.gram(number, name).to(weights[0].device) for name in names]
    magnitude = statistics.magnitude(number, names[0]).to(weights[0].device)
    best = channel_scales(weights, grams, magnitude, BITS, group_size, awq_format.SCALES)
    applied = divide_inputs(layer, names, best.scale)
    if applied is None:
        return torch.ones_like(magnitude), None
    for name in names:
        linears[name].weight.data *= applied
    return applied, best.exponent


def rounded(weight: Tensor, gram: Tensor, group_size: int, *, full_range: bool) -> Rounded:
    """The scaled weight (outputs, inputs), rounded to 4 bits. `full_range` keeps each group's range instead of clipping it."""
    bits, stored = BITS, awq_format.SCALES
    groups = weight.reshape(-1, group_size)
    if full_range:
        grid = Grid(*(part.view(len(weight), -1) for part in grid_of(groups, bits, stored, symmetric=False)))
    else:
        grid = clipped(weight, gram, bits, group_size, stored)
    codes = Grid(*(part.reshape(-1, 1) for part in grid)).codes(groups, bits).to(torch.uint8)
    return Rounded(codes.view_as(weight), grid)
