"""Quantization by transformers, which quantizes models when it loads them: the model is saved and loaded again."""

from __future__ import annotations

import tempfile
from pathlib import Path

from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.quantization_config import QuantizationConfigMixin

from compresslab.models.device import placement
from compresslab.models.load import Loaded, quiet
from compresslab.models.save import save


def quantized_by_loading(loaded: Loaded, settings: QuantizationConfigMixin) -> PreTrainedModel:
    """The model, saved into a temporary folder and loaded by transformers with the settings."""
    with tempfile.TemporaryDirectory(prefix="compresslab-") as scratch:
        folder = Path(scratch)
        save(loaded, folder)
        with quiet():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=loaded.model.dtype,
                quantization_config=settings,
                local_files_only=True,
                trust_remote_code=False,
                **placement(loaded.model.device),
            )
    return model
