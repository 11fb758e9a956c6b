"""Tries a model as it is in its folder: its parameters that are not zero, its tensors' digest, and its logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from compresslab.inputs import safetensors_header
from compresslab.models.anatomy import parameters_of
from compresslab.models.computing import computing
from compresslab.models.load import Loaded, explained, probe_logits, quiet, refuse_infinite
from compresslab.models.size import nonzero_of, plain_skeleton
from compresslab.models.streamed.digests import tensor_digests
from compresslab.models.streamed.result import Result
from compresslab.recipe.stored_weights import loaded_files, plainly_stored
from compresslab.records.compute import Dtype


class Trial(NamedTuple):
    """The number of parameters that are not zero, the logits of the probe, and the digest of all tensors."""

    nonzero: int
    probe: Tensor
    tensors: dict[str, str]


def tried(loaded: Loaded, compute: torch.dtype, what: str) -> Trial:
    """Try a model with plain weights. It must not be used afterwards.

    Raises:
        RunFailed: a logit is not finite.
    """
    if loaded.weights is None:
        nonzero, tensors = nonzero_of(loaded.model), tensor_digests(loaded.model)
        logits = probe_logits(computing(loaded.model, compute))
    else:
        result = Result(loaded, None, compute)
        for _ in result.layers():
            pass
        logits = result.finish(None)
        nonzero, tensors = result.nonzero, result.digests
    refuse_infinite(logits, what)
    return Trial(nonzero, logits, tensors)


def as_saved(folder: Path, files: Mapping[str, Path], dtype: Dtype) -> bool:
    """Whether a folder is what a copy of its model would be: plainly stored (`plainly_stored`), and with no tensor that the model lacks.

    Args:
        files: those that a loader may read, by name.
    """
    return plainly_stored(folder, files, dtype) and _stored_elements(folder) == _saved_elements(folder)


def _stored_elements(folder: Path) -> int:
    return sum(math.prod(entry["shape"]) for file in loaded_files(folder) for entry in safetensors_header(file).values())


def _saved_elements(folder: Path) -> int:
    """The elements of all tensors that `save` writes of a folder's model, a tied one once.

    A model that loads has all of its tensors, so a folder with as many elements has no other one. Names do not tell this, since
    transformers renames and merges tensors.
    """
    with explained(folder), quiet():
        skeleton = plain_skeleton(folder)
    kept = skeleton.state_dict().keys()
    buffers = [buffer for name, buffer in skeleton.named_buffers() if name in kept]
    return parameters_of(skeleton) + sum(map(torch.numel, buffers))
