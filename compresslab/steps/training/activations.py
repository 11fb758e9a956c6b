"""Activation checkpointing: activations that are computed again in the backward pass, and not kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from transformers import PreTrainedModel

from compresslab.errors import UnsupportedModel


@contextlib.contextmanager
def recomputing(model: PreTrainedModel) -> Iterator[None]:
    """A context in which a model that trains keeps the inputs of its decoder layers alone.

    Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174, as transformers implements it.

    Raises:
        UnsupportedModel: its code cannot.
    """
    if not model.supports_gradient_checkpointing:
        raise UnsupportedModel(f"{model.config.model_type}: its code has no activation checkpointing; leave activation_checkpointing out")
    name = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"  # its name before transformers 5.24
    getattr(model, f"{name}_checkpointing_enable")({"use_reentrant": False})
    try:
        yield
    finally:
        getattr(model, f"{name}_checkpointing_disable")()
