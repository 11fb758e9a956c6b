"""What training all weights costs, whatever it learns from."""

from __future__ import annotations

from compresslab.methods.method import Footprint

# Forward and backward together, in forward passes.
FORWARDS_A_STEP = 3
# Master weight, gradient and two moments of AdamW in float32, for each parameter.
TRAINING_BYTES = 16
FLOAT32_BYTES = 4


def training_memory(model: Footprint) -> float:
    """Bytes that training all weights of a model takes; a copy to compute with is one more where that is not in float32."""
    parameters = model.dimensions.parameters
    copy = model.weights if model.weights < FLOAT32_BYTES * parameters else 0.0
    return TRAINING_BYTES * parameters + copy
