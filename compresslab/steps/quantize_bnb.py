"""bitsandbytes quantization: 4-bit NormalFloat and LLM.int8()."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from compresslab.models.load import Loaded, quiet
from compresslab.models.save import save
from compresslab.recipe.schema import QuantizeInt8, QuantizeNF4
from compresslab.steps.contract import Context, Outcome

# It warns at every product of every layer that LLM.int8() computes in float16, which is how the method works.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def apply(loaded: Loaded, config: QuantizeNF4 | QuantizeInt8, context: Context) -> Outcome:
    """Quantize every linear layer but the output head.

    Sources: Dettmers et al. 2023, "QLoRA", arXiv 2305.14314 (NF4); Dettmers et al. 2022, "LLM.int8()", arXiv 2208.07339.
    """
    context.progress(0.0, config.method)
    with tempfile.TemporaryDirectory() as scratch:
        # transformers quantizes while it loads, so the model goes through a folder.
        folder = Path(scratch)
        save(loaded, folder)
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=loaded.model.dtype, quantization_config=settings(config), local_files_only=True
            )
    return Outcome(model)


def settings(config: QuantizeNF4 | QuantizeInt8) -> BitsAndBytesConfig:
    """The recipe's settings in bitsandbytes' words."""
    if isinstance(config, QuantizeInt8):
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=config.threshold)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=config.double_quantization,
    )
