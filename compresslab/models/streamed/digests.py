"""Digests of a model's tensors, each of its own, so that tensors may come in any order and in parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compresslab.models.formats.reader import quantization_in, reader_of


class TensorDigest:
    """The digest of a tensor's dtype, shape and bytes, which come in parts of consecutive rows."""

    def __init__(self, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self._digest = hashlib.sha256(f"{dtype} {shape}".encode())

    def update(self, part: Tensor) -> None:
        """Add the next rows."""
        self._digest.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)

    def hexdigest(self) -> str:
        """The digest of all parts so far."""
        return self._digest.hexdigest()


def digest_of(tensor: Tensor, dtype: torch.dtype) -> str:
    """The digest of a whole tensor.

    Args:
        dtype: of the model's weights. A scalar (Gemma's scale of the embeddings) is used in it, whatever its own is.
    """
    converted = tensor.to(dtype) if tensor.is_floating_point() and tensor.dim() == 0 else tensor
    digest = TensorDigest(converted.dtype, tuple(converted.shape))
    digest.update(converted)
    return digest.hexdigest()


def tensor_digests(model: PreTrainedModel) -> dict[str, str]:
    """Digests of dtype, shape and bytes of all tensors of a model by name, including those that are in no file (rotary frequencies).

    For a layer packed by a kernel library (gptqmodel) it covers the plain weight by which the kernel multiplies, so that the digests of
    such a model and of the plain model that it was made from are equal. They must be computed before the first forward pass, since
    bitsandbytes and compressed-tensors change the layout of weights at their first use.
    """
    tensors = reader_of(quantization_in(model)).tensors(model)
    parts = (inner for outer in tensors.items() for inner in _parts(*outer))
    return {name: digest_of(tensor, model.dtype) for name, tensor in parts if isinstance(tensor, torch.Tensor)}


def _parts(name: str, tensor: object) -> Iterator[tuple[str, object]]:
    """The plain tensors inside a tensor of torchao; any other tensor itself."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield name, tensor
        return
    for part in tensor.__tensor_flatten__()[0]:
        yield f"{name}.{part}", getattr(tensor, part)
