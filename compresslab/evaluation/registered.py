"""`compresslab` as a model of lm-eval's own command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm_eval.api.registry import register_model

from compresslab.errors import BadInput
from compresslab.evaluation.treelm import TreeLM
from compresslab.models.dequantize import load_for_scoring
from compresslab.models.load import load
from compresslab.recipe.schema import Dtype

# What lm-eval's command line gives to every model, and what `TreeLM` decides by itself.
LEFT_TO_US = frozenset({"batch_size", "max_batch_size", "device"})


@register_model("compresslab")
class CommandLineLM(TreeLM):
    """`--model compresslab --model_args pretrained=FOLDER_OR_NAME,dtype=bfloat16,budget=512`."""

    def __init__(self, pretrained: str, dtype: Dtype = "bfloat16", budget: int | None = None, **others: Any) -> None:
        """Load the model as a recipe's base is loaded; a packed folder is unpacked for scoring.

        Raises:
            BadInput: an argument that means nothing here.
        """
        import torch

        if unknown := sorted(set(others) - LEFT_TO_US):
            raise BadInput(f"--model compresslab takes pretrained, dtype and budget; it knows no {', '.join(unknown)}")
        folder = Path(pretrained)
        loaded = load_for_scoring(folder, getattr(torch, dtype))[0] if folder.is_dir() else load(pretrained, dtype)
        super().__init__(loaded.model, loaded.tokenizer, budget=budget)
