"""The name of the cache that a model's forward pass takes and returns."""

from __future__ import annotations

import inspect

from transformers import PreTrainedModel

# transformers 5.24's name, then the names before it: of recurrent models and of all others.
NAMES = ("cache", "cache_params", "past_key_values")


def cache_name(model: PreTrainedModel) -> str:
    """The keyword of `model`'s cache: transformers renames it, and a model's own code may keep the old name."""
    parameters = inspect.signature(type(model).forward).parameters
    return next((name for name in NAMES if name in parameters), NAMES[-1])
