"""Tries a model as it is in its folder: its parameters that are not zero, its tensors' digest, and its logits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import AutoConfig

from compresslab.inputs import LARGEST_INDEX, read_json, safetensors_header
from compresslab.models.computing import computing
from compresslab.models.formats.reader import quantization_of
from compresslab.models.load import Loaded, explained, probe_logits, quiet, refuse_infinite
from compresslab.models.save import tensors_digest
from compresslab.models.size import nonzero_of
from compresslab.models.streamed.digests import combined
from compresslab.models.streamed.result import Result
from compresslab.models.streamed.shards import INDEX
from compresslab.models.streamed.tensor_files import DTYPES
from compresslab.records.compute import Dtype

SINGLE = "model.safetensors"
WIDER = {"F16", "BF16", "F32", "F64"}


class Trial(NamedTuple):
    """The number of parameters that are not zero, the logits of the probe, and the digest of all tensors."""

    nonzero: int
    probe: Tensor
    tensors: str


def tried(loaded: Loaded, compute: torch.dtype, what: str) -> Trial:
    """Try a model with plain weights. It must not be used afterwards.

    Raises:
        RunFailed: a logit is not finite.
    """
    if loaded.weights is None:
        nonzero, tensors = nonzero_of(loaded.model), tensors_digest(loaded.model)
        logits = probe_logits(computing(loaded.model, compute))
    else:
        result = Result(loaded, None, compute)
        for _ in result.layers():
            pass
        logits = result.finish(None)
        nonzero, tensors = result.nonzero, combined(result.digests)
    refuse_infinite(logits, what)
    return Trial(nonzero, logits, tensors)


def as_saved(folder: Path, files: Mapping[str, Path], dtype: Dtype) -> bool:
    """Whether a folder is what a copy of its model would be: plain safetensors in this dtype, with a tokenizer, and no other weights.

    Args:
        files: those that a loader may read, by name.
    """
    try:
        return _as_saved(folder, files, dtype)
    except (OSError, ValueError):  # loading it explains what is damaged
        return False


def _as_saved(folder: Path, files: Mapping[str, Path], dtype: Dtype) -> bool:
    stored = {path.name for path in folder.glob("*.safetensors")}
    if SINGLE in stored:
        loaded = {SINGLE}
    elif INDEX in files:
        loaded = set(read_json(files[INDEX], LARGEST_INDEX)["weight_map"].values())
    else:
        return False
    if stored != loaded or "tokenizer.json" not in files or quantization_of(folder) is not None:
        return False
    with explained(folder), quiet():
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    named = getattr(torch, dtype)
    dtypes = {entry["dtype"] for name in stored for entry in safetensors_header(folder / name).values()}
    return config.dtype == named and dtypes & WIDER == {DTYPES[named]} and getattr(config, "auto_map", None) is None
