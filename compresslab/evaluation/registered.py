"""`compresslab` as a model of lm-eval's own command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm_eval.api.registry import register_model

from compresslab.errors import BadInput
from compresslab.evaluation.treelm import TreeLM
from compresslab.models.dequantize import load_for_scoring
from compresslab.models.device import find_device
from compresslab.models.load import load
from compresslab.models.probe import probe
from compresslab.records.compute import ComputeChoice

# What lm-eval's command line gives to every model, and what `TreeLM` decides by itself.
LEFT_TO_US = frozenset({"batch_size", "max_batch_size", "device"})


@register_model("compresslab")
class CommandLineLM(TreeLM):
    """`--model compresslab --model_args pretrained=FOLDER_OR_NAME,dtype=auto,budget=512`."""

    def __init__(self, pretrained: str, dtype: ComputeChoice = "auto", budget: int | None = None, **others: Any) -> None:
        """Load the model as a recipe's base is loaded; a packed folder is unpacked for scoring.

        Args:
            dtype: to compute in; `auto` takes bfloat16 where this machine multiplies in it at least as fast as in float32.

        Raises:
            BadInput: an argument that means nothing here.
        """
        import torch

        if unknown := sorted(set(others) - LEFT_TO_US):
            raise BadInput(f"--model compresslab takes pretrained, dtype and budget; it knows no {', '.join(unknown)}")
        folder = Path(pretrained)
        chosen = probe(find_device(), torch.get_num_threads()).dtype_for("bfloat16") if dtype == "auto" else dtype
        loaded = load_for_scoring(folder, getattr(torch, chosen))[0] if folder.is_dir() else load(pretrained, chosen)
        super().__init__(loaded.model, loaded.tokenizer, budget=budget)
