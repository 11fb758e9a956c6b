"""Measures inference time of a variant and its parent alternately in one process, with the kernels of their formats."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch
from transformers import PreTrainedModel

from compresslab.evaluation.engines.cache_name import cache_name
from compresslab.models.computing import computing
from compresslab.models.device import synchronize, torch_dtype
from compresslab.models.formats.dequantize import kernel_name
from compresslab.models.load import load_folder
from compresslab.models.progress import Progress
from compresslab.recipe.schema import Workload
from compresslab.records import Timing
from compresslab.records.compute import Compute

ROUNDS = 3
# Number of timed decoding steps, from which the time of the workload's `decode` tokens is extrapolated.
DECODED = 8


@torch.no_grad()
def measure(folder: Path, parent: Path | None, workload: Workload, machine: str, compute: Compute, progress: Progress) -> Timing:
    """Time one request batch of `workload` on the model in `folder` and alternately on its parent.

    A round is one prefill of the prompt and `DECODED` greedy steps with the cache. The first round of each model is discarded, because
    packed kernels repack their weights at the first use. Ratios are computed per round, so that a slow phase of the machine affects both.

    Args:
        machine: its name, for the record. compute: dtype and device of plain and of packed weights.
    """
    model = _as_served(folder, compute)
    other = _as_served(parent, compute) if parent is not None else None
    progress(0.0, "a first round, which does not count")
    _round(model, workload)
    if other is not None:
        _round(other, workload)
    ours, theirs, prefills = [], [], []
    for number in range(ROUNDS):
        prefill, total = _round(model, workload)
        prefills.append(prefill)
        ours.append(total)
        if other is not None:
            theirs.append(_round(other, workload)[1])
        progress((number + 1) / ROUNDS, f"round {number + 1} of {ROUNDS}")
    ratios = [mine / other_time for mine, other_time in zip(ours, theirs, strict=True)] if theirs else []
    return Timing(
        machine=machine,
        batch=workload.batch,
        prompt=workload.prompt,
        decode=workload.decode,
        rounds=ROUNDS,
        seconds=statistics.median(ours),
        prefill_seconds=statistics.median(prefills),
        parent_seconds=statistics.median(theirs) if theirs else None,
        ratio=statistics.median(ratios) if ratios else None,
        low=min(ratios, default=None),
        high=max(ratios, default=None),
        weights=kernel_name(folder),
        compute=compute.decides(),
    )


def _as_served(folder: Path, compute: Compute) -> PreTrainedModel:
    """The model of a folder with the kernels of its format."""
    return computing(load_folder(folder, device=compute.device).model, torch_dtype(compute))


def _round(model: PreTrainedModel, workload: Workload) -> tuple[float, float]:
    """Seconds of the prefill, and of the whole request with decoding extrapolated to the workload."""
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.randint(vocabulary, (workload.batch, workload.prompt), generator=torch.Generator().manual_seed(0)).to(model.device)
    name = cache_name(model)
    start = _now(model)
    output = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    prefill = _now(model) - start
    start = _now(model)
    for _ in range(DECODED):
        step = output.logits[:, -1:].argmax(-1)
        output = model(input_ids=step, use_cache=True, **{name: output[name]})
    return prefill, prefill + (_now(model) - start) * workload.decode / DECODED


def _now(model: PreTrainedModel) -> float:
    synchronize(model.device)
    return time.perf_counter()
