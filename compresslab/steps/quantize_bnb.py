"""bitsandbytes quantization: 4-bit NormalFloat, 4-bit floating point and LLM.int8()."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import torch
from bitsandbytes.functional import has_avx512bf16
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from compresslab.errors import BadInput
from compresslab.models.anatomy import check_linear, quantizable
from compresslab.models.device import placement
from compresslab.models.load import Loaded, quiet
from compresslab.models.save import save
from compresslab.recipe.steps import Quantize4Bit, QuantizeInt8
from compresslab.steps.contract import Context, Outcome

# It warns at every product of every layer that LLM.int8() computes in float16, which is how the method works.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


# Weights that share a scale, and rows that the kernel takes at a time.
BLOCK, KERNEL_ROWS = 64, 32


def apply(loaded: Loaded, config: Quantize4Bit | QuantizeInt8, context: Context) -> Outcome:
    """Quantize every linear layer but the output head.

    Sources: Dettmers et al. 2023, "QLoRA", arXiv 2305.14314 (NF4); Dettmers et al. 2022, "LLM.int8()", arXiv 2208.07339.

    Raises:
        BadInput: a layer's sizes do not suit the kernel of this processor.
        UnsupportedModel: much of the model is in no linear layer.
    """
    check_linear(loaded.model, config.method)
    if isinstance(config, Quantize4Bit) and loaded.model.device.type == "cpu" and has_avx512bf16():
        check_cpu_kernel(quantizable(loaded.model), config.method)
    context.progress(0.0, config.method)
    with tempfile.TemporaryDirectory() as scratch:
        # transformers quantizes while it loads, so the model goes through a folder.
        folder = Path(scratch)
        save(loaded, folder)
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=loaded.model.dtype, quantization_config=settings(config), local_files_only=True, **placement()
            )
    return Outcome(model)


def check_cpu_kernel(layers: dict[str, nn.Linear], who: str) -> None:
    """Refuse layers that bitsandbytes' 4-bit kernel for processors with AVX-512 bf16 cannot repack: it fails at their first use.

    Raises:
        BadInput: naming the first such layer.
    """
    for name, layer in layers.items():
        if layer.in_features % BLOCK or layer.out_features % KERNEL_ROWS:
            raise BadInput(
                f"quantize {who}: {name} has {layer.in_features} inputs and {layer.out_features} outputs; on this processor bitsandbytes "
                f"needs inputs in multiples of {BLOCK} and outputs in multiples of {KERNEL_ROWS} "
                f"(after `prune: {{method: width}}`, set `multiple: {BLOCK}`), or a GPU"
            )


def settings(config: Quantize4Bit | QuantizeInt8) -> BitsAndBytesConfig:
    """The recipe's settings in bitsandbytes' words."""
    if isinstance(config, QuantizeInt8):
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=config.threshold)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=config.method.removeprefix("bnb-"),
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=config.double_quantization,
    )
