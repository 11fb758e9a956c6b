"""Loads the lm-eval model for `evaluate.backend` of a recipe."""

from __future__ import annotations

from pathlib import Path

from compresslab.evaluation.tree_lm import TreeLM
from compresslab.evaluation.vllm_lm import VllmLM
from compresslab.evaluation.vllm_lm import load as load_vllm
from compresslab.models.device import torch_dtype
from compresslab.models.formats.dequantize import load_for_scoring
from compresslab.models.ranks import ALONE, Ranks
from compresslab.recipe.schema import Evaluate
from compresslab.records.compute import Compute

EvaluationLM = TreeLM | VllmLM


def load_lm(
    folder: Path,
    config: Evaluate,
    compute: Compute,
    *,
    journals: Path | None = None,
    encodings: Path | None = None,
    ranks: Ranks = ALONE,
) -> tuple[EvaluationLM, str]:
    """The lm-eval model for the variant in `folder`, and whether its weights are "as stored" or "dequantized".

    Args:
        compute: dtype and device of the forward passes.
        journals: folder for the journals of unfinished tasks of this variant. encodings: folder for a study's token ids.
        ranks: the processes that answer together; see `TreeLM`. vLLM takes all accelerators itself.
    """
    if config.backend == "vllm":
        return load_vllm(folder, compute, truncate=config.truncate), "as stored"
    loaded, weights = load_for_scoring(folder, torch_dtype(compute), compute.device)
    lm = TreeLM(
        loaded.model,
        loaded.tokenizer,
        journals=journals,
        encodings=encodings,
        truncate=config.truncate,
        backend=config.backend,
        ranks=ranks,
    )
    return lm, weights
