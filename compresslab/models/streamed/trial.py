"""Tries a model as it is in its folder: its parameters that are not zero, its tensors' digest, and its logits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from compresslab.models.computing import computing
from compresslab.models.counting.size import nonzero_of, plain_skeleton, saved_elements, stored_tensors
from compresslab.models.load import Loaded, explained, probe_logits, quiet, refuse_infinite
from compresslab.models.streamed.digests import tensor_digests
from compresslab.models.streamed.result import Result
from compresslab.recipe.stored_weights import plainly_stored
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
    if not plainly_stored(folder, files, dtype):
        return False
    with explained(folder), quiet():
        skeleton = plain_skeleton(folder)
    # A model that loads has all of its tensors, so a folder with as many elements has no other one. Names do not tell this, since
    # transformers renames and merges tensors.
    return sum(stored.elements for stored in stored_tensors(folder).values()) == saved_elements(skeleton)
