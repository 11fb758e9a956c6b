"""bitsandbytes quantization: 4-bit NormalFloat, 4-bit floating point and LLM.int8()."""

from __future__ import annotations

import logging

import torch
from bitsandbytes.functional import has_avx512bf16
from transformers import BitsAndBytesConfig

from compresslab.methods.bitsandbytes import Quantize4Bit, QuantizeInt8
from compresslab.models.anatomy import kept_plain, quantizable
from compresslab.models.load import Loaded
from compresslab.steps.checks import check_sizes
from compresslab.steps.contract import Context, StepResult
from compresslab.steps.quantize_on_load import quantized_by_loading

# bitsandbytes warns at every product of every layer that LLM.int8() computes in float16, which is part of the method.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

# Number of weights per scale, and number of rows that the kernel processes at a time.
BLOCK, KERNEL_ROWS = 64, 32


def apply(loaded: Loaded, config: Quantize4Bit | QuantizeInt8, context: Context) -> StepResult:
    """Quantize every linear layer except the output head.

    Sources: Dettmers et al. 2023, "QLoRA", arXiv 2305.14314 (NF4); Dettmers et al. 2022, "LLM.int8()", arXiv 2208.07339.

    Raises:
        BadInput: the kernel of this processor does not support a layer's sizes.
    """
    if isinstance(config, Quantize4Bit) and loaded.model.device.type == "cpu" and has_avx512bf16():
        # The 4-bit kernel for processors with AVX-512 bf16 fails at the first use of a layer that it cannot repack.
        user = "on this processor bitsandbytes"
        check_sizes(quantizable(loaded.model), config.method, user, BLOCK, KERNEL_ROWS)
    context.progress(0.0, config.method)
    return StepResult(quantized_by_loading(loaded, settings(config, kept_plain(loaded.model))))


def settings(config: Quantize4Bit | QuantizeInt8, plain: list[str] | None = None) -> BitsAndBytesConfig:
    """The recipe's settings as bitsandbytes' config. `plain`: the layers that stay plain, if they are more than the output head."""
    if isinstance(config, QuantizeInt8):
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=config.threshold, llm_int8_skip_modules=plain or None)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=config.method.removeprefix("bnb-"),
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=config.double_quantization,
        llm_int8_skip_modules=plain or None,
    )
