"""torchao checkpoints: weights that are tensor subclasses."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from compresslab.models.device import placement
from compresslab.models.formats.reader import Reader
from compresslab.models.load import quiet


class TorchAOReader(Reader):
    """Unpacks weights with their own `dequantize`, or with their kernel."""

    counts_in_memory = True
    names_as_stored = True

    def plain_model(self, folder: Path, device: torch.device) -> PreTrainedModel:
        """The model of a folder with plain weights."""
        with quiet():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                folder, dtype="auto", local_files_only=True, use_safetensors=True, trust_remote_code=False, **placement(device)
            )
        for module in model.modules():
            packed = getattr(module, "weight", None)
            if packed is not None and _is_packed(packed):  # a plain one may be tied to another, and stays
                module.weight = torch.nn.Parameter(self.plain_weight(packed))
        for config in (model.config, model.config.get_text_config()):
            if hasattr(config, "quantization_config"):
                del config.quantization_config
        return model.eval()

    def plain_weight(self, parameter: Tensor) -> Tensor:
        """The unpacked weight if `parameter` is packed, else `parameter`."""
        if not _is_packed(parameter):
            return parameter
        try:
            weight: Tensor = parameter.dequantize()
        except NotImplementedError:
            # The layout of the int4 kernel for GPUs cannot be unpacked. The product with the identity is exact: one term of each sum is
            # not zero.
            identity = torch.eye(parameter.shape[1], dtype=parameter.dtype, device=parameter.device)
            weight = torch.nn.functional.linear(identity, parameter).T.contiguous()
        return weight


def _is_packed(parameter: Tensor) -> bool:
    return hasattr(parameter, "__tensor_flatten__")


def reader() -> Reader:
    """The reader that `Format.reader` refers to."""
    return TorchAOReader()
