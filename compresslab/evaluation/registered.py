"""Registers `compresslab` as a model of lm-eval's command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from lm_eval.api.registry import register_model

from compresslab.errors import BadInput
from compresslab.evaluation.tree_lm import TreeLM
from compresslab.models.device import find_device
from compresslab.models.formats.dequantize import load_for_scoring
from compresslab.models.load import load
from compresslab.models.probe import probe
from compresslab.recipe.model_config import read_config
from compresslab.recipe.model_folder import check_model
from compresslab.recipe.source import parse_source
from compresslab.records.compute import ComputeChoice, Dtype

# Arguments that lm-eval's command line passes to every model and that `TreeLM` does not need.
IGNORED_ARGUMENTS = frozenset({"batch_size", "max_batch_size"})


@register_model("compresslab")
class CommandLineLM(TreeLM):
    """`--model compresslab --model_args pretrained=FOLDER_OR_NAME,dtype=auto,budget=512`."""

    def __init__(
        self, pretrained: str, dtype: ComputeChoice = "auto", budget: int | None = None, device: str | None = None, **others: Any
    ) -> None:
        """Load the model like a recipe's base. A packed folder is unpacked for scoring.

        Args:
            dtype: the compute dtype. `auto` takes the folder's stored dtype if the device multiplies in it at least as fast as in float32,
                else float32. A model that is no folder counts as stored in bfloat16.

        Raises:
            BadInput: an argument is not known, or there is no such model, or it must not be loaded.
        """
        import torch

        if unknown := sorted(set(others) - IGNORED_ARGUMENTS):
            raise BadInput(f"--model compresslab takes pretrained, dtype, budget and device; it knows no {', '.join(unknown)}")
        folder = Path(pretrained)
        target = find_device(device)
        check_model(parse_source(pretrained))
        stored = _stored_dtype(folder) if folder.is_dir() else "bfloat16"
        compute_dtype = probe(target, torch.get_num_threads()).dtype_for(stored) if dtype == "auto" else dtype
        if folder.is_dir():
            loaded = load_for_scoring(folder, getattr(torch, compute_dtype), str(target))[0]
        else:
            loaded = load(pretrained, compute_dtype, device=str(target))
        super().__init__(loaded.model, loaded.tokenizer, budget=budget)


def _stored_dtype(folder: Path) -> Dtype:
    """The dtype in a folder's config; bfloat16 if it is none of the supported ones."""
    config = read_config(folder / "config.json")
    named = str(config.get("dtype") or config.get("torch_dtype"))
    return named if named in get_args(Dtype) else "bfloat16"  # type: ignore[return-value]
