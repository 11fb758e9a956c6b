"""Models that multiply in another dtype than their checkpoint holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

from compresslab.models.load import cast

# compressed-tensors': unpacks a model before its first forward pass, and removes itself.
UNPACKING_HOOK = "ct_decompress_hook"


def computing(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Let a loaded model multiply in `dtype`, in place.

    Plain weights are cast. Packed ones stay packed, and their kernels get inputs of this dtype: bitsandbytes' and gptqmodel's unpack the
    weights to it; a kernel that knows only 16 bits (gptqmodel's AWQ on a processor) rounds its inputs. compressed-tensors unpacks at the
    first use in any case, so it does so here.
    """
    for hook in list(model._forward_pre_hooks.values()):
        if getattr(hook, "__name__", "") == UNPACKING_HOOK:
            hook(model, ())
    cast(model, dtype)
    for module in model.modules():
        if hasattr(module, "compute_type_is_set"):  # bitsandbytes' 4-bit layers
            module.compute_dtype, module.compute_type_is_set = dtype, True
    return model


@contextlib.contextmanager
def computing_temporarily(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[PreTrainedModel]:
    """Let a model with plain weights multiply in `dtype` inside the block; its weights are what they were behind it."""
    before = {parameter: parameter.data for parameter in model.parameters()}
    own = model.config.dtype
    try:
        yield cast(model, dtype)
    finally:
        for parameter, data in before.items():
            parameter.data = data
        model.config.dtype = own
