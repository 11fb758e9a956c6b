"""`compresslab` as a model of lm-eval's own command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from lm_eval.api.registry import register_model

from compresslab.errors import BadInput
from compresslab.evaluation.tree_lm import TreeLM
from compresslab.models.device import find_device
from compresslab.models.formats.dequantize import load_for_scoring
from compresslab.models.load import load
from compresslab.models.probe import probe
from compresslab.records.compute import ComputeChoice, Dtype

# What lm-eval's command line gives to every model, and what `TreeLM` decides by itself.
LEFT_TO_US = frozenset({"batch_size", "max_batch_size"})


@register_model("compresslab")
class CommandLineLM(TreeLM):
    """`--model compresslab --model_args pretrained=FOLDER_OR_NAME,dtype=auto,budget=512`."""

    def __init__(
        self, pretrained: str, dtype: ComputeChoice = "auto", budget: int | None = None, device: str | None = None, **others: Any
    ) -> None:
        """Load the model as a recipe's base is loaded; a packed folder is unpacked for scoring.

        Args:
            dtype: to compute in; `auto` takes the dtype that the folder stores where the device multiplies in it at least as fast as in
                float32, else float32; what is no folder counts as stored in bfloat16.

        Raises:
            BadInput: an argument that means nothing here.
        """
        import torch

        if unknown := sorted(set(others) - LEFT_TO_US):
            raise BadInput(f"--model compresslab takes pretrained, dtype and budget; it knows no {', '.join(unknown)}")
        folder = Path(pretrained)
        place = find_device(device)
        stored = _stored_dtype(folder) if folder.is_dir() else "bfloat16"
        chosen = probe(place, torch.get_num_threads()).dtype_for(stored) if dtype == "auto" else dtype
        if folder.is_dir():
            loaded = load_for_scoring(folder, getattr(torch, chosen), str(place))[0]
        else:
            loaded = load(pretrained, chosen, device=str(place))
        super().__init__(loaded.model, loaded.tokenizer, budget=budget)


def _stored_dtype(folder: Path) -> Dtype:
    """The dtype that a folder's config names; bfloat16 where it names none of ours."""
    config = json.loads((folder / "config.json").read_text())
    named = str(config.get("dtype") or config.get("torch_dtype"))
    return named if named in get_args(Dtype) else "bfloat16"  # type: ignore[return-value]
