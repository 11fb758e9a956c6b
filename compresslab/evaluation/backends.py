"""Which model of lm-eval answers for a variant: `evaluate.backend` of the recipe."""

from __future__ import annotations

from pathlib import Path

from compresslab.evaluation.tree_lm import TreeLM
from compresslab.evaluation.vllm_lm import VllmLM
from compresslab.evaluation.vllm_lm import load as load_vllm
from compresslab.models.device import torch_dtype
from compresslab.models.formats.dequantize import load_for_scoring
from compresslab.recipe.schema import Evaluate
from compresslab.records.compute import Compute

Answering = TreeLM | VllmLM


def answering(
    folder: Path, config: Evaluate, compute: Compute, *, journals: Path | None = None, encodings: Path | None = None
) -> tuple[Answering, str]:
    """What answers for the variant in `folder`, and how its weights stand in memory: "as stored" or "dequantized".

    Args:
        compute: what the forward passes multiply in, and on what.
        journals: where this variant's answers are kept until its tasks are done. encodings: where a study's token ids are.
    """
    if config.backend == "vllm":
        return load_vllm(folder, compute, truncate=config.truncate), "as stored"
    loaded, weights = load_for_scoring(folder, torch_dtype(compute), compute.device)
    lm = TreeLM(loaded.model, loaded.tokenizer, journals=journals, encodings=encodings, truncate=config.truncate, backend=config.backend)
    return lm, weights
