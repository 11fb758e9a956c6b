"""Sets the compute dtype of a loaded model, which may differ from the dtype of its checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compresslab.models.load import cast

# Hook of compressed-tensors that unpacks a model before its first forward pass and then removes itself.
UNPACKING_HOOK = "ct_decompress_hook"


def computing(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Make a loaded model compute in `dtype`, in place.

    Plain weights are cast. Packed ones stay packed, and their kernels get inputs of this dtype. The kernels of bitsandbytes and gptqmodel
    unpack the weights to it; a kernel for 16 bits only (gptqmodel's AWQ on a processor, its kernels for GPUs) rounds its inputs. Weights
    of compressed-tensors, which are always unpacked at the first use, are unpacked here.
    """
    for hook in list(model._forward_pre_hooks.values()):
        if getattr(hook, "__name__", "") == UNPACKING_HOOK:
            hook(model, ())
    cast(model, dtype)
    for module in model.modules():
        if hasattr(module, "compute_type_is_set"):  # bitsandbytes' 4-bit layers
            module.compute_dtype, module.compute_type_is_set = dtype, True
        elif model.device.type != "cpu" and dtype not in (getattr(module, "SUPPORTS_DTYPES", None) or [dtype]):  # gptqmodel's layers
            _round_inputs(module, dtype)
    return model


def _round_inputs(layer: nn.Module, dtype: torch.dtype) -> None:
    """Let a layer whose kernel multiplies in 16 bits take and return tensors in `dtype`."""
    own = getattr(layer, "compute_dtype", None) or torch.float16

    def round_inputs(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(given.to(own) for given in inputs)

    def cast_output(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.to(dtype)

    layer.register_forward_pre_hook(round_inputs)
    layer.register_forward_hook(cast_output)


def stored_dtypes(model: PreTrainedModel) -> dict[str, torch.dtype]:
    """The dtypes of the floating-point parameters by name. transformers keeps some in float32 (a router's) whatever the others are in."""
    return {name: parameter.dtype for name, parameter in model.named_parameters() if parameter.is_floating_point()}


def cast_back(model: PreTrainedModel, dtypes: Mapping[str, torch.dtype], dtype: torch.dtype) -> PreTrainedModel:
    """Give the parameters of a model that was cast their own dtypes again, in place.

    Args:
        dtypes: as `stored_dtypes` gave them before. dtype: the model's.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtypes.get(name, dtype))
    model.config.dtype = dtype
    return model


@contextlib.contextmanager
def computing_temporarily(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[PreTrainedModel]:
    """A context in which a model with plain weights computes in `dtype`; its weights are restored at the end."""
    before = {name: parameter.data for name, parameter in model.named_parameters()}
    own = model.config.dtype
    try:
        yield cast(model, dtype)
    finally:
        for name, data in before.items():
            model.get_parameter(name).data = data
        model.config.dtype = own
