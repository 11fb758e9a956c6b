"""The name of the cache argument of a model's forward pass, and of the cache in its output."""

from __future__ import annotations

import inspect

from transformers import PreTrainedModel

# The name in transformers 5.24, then the earlier names for recurrent models and for all others.
NAMES = ("cache", "cache_params", "past_key_values")


def cache_name(model: PreTrainedModel) -> str:
    """The keyword of `model`'s cache. transformers renamed it, and a model's own code may have the old name."""
    parameters = inspect.signature(type(model).forward).parameters
    return next((name for name in NAMES if name in parameters), NAMES[-1])
