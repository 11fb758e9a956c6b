"""Costs of training all weights, shared by distillation and retraining."""

from __future__ import annotations

from compresslab.methods.method import Footprint

# Cost of a forward and a backward pass, in forward passes.
FORWARDS_A_STEP = 3
# Master weight, gradient and two moments of AdamW in float32, for each parameter.
TRAINING_BYTES = 16
FLOAT32_BYTES = 4


def training_memory(model: Footprint) -> float:
    """Bytes for training all weights of a model, with a second copy of the weights where it does not compute in float32."""
    parameters = model.dimensions.parameters
    copy = model.weights if model.weights < FLOAT32_BYTES * parameters else 0.0
    return TRAINING_BYTES * parameters + copy
