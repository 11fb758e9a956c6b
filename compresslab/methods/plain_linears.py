"""Which architectures compute with other classes than torch's linear layer, and how a method for linear layers refuses them."""

from __future__ import annotations

from compresslab.methods.method import Kind

# The class of the projections in decoder layers, by `model_type`. Mixtures of experts are not here: whether a model has experts, and how
# large they are, is not decided by its architecture.
OTHER_PROJECTIONS = {"falcon": "FalconLinear", "gpt2": "Conv1D", "openai-gpt": "Conv1D"}


def not_linear(architecture: str, method: str, kind: Kind, module: str, share: float = 1.0) -> str:
    """Why a method that serves linear layers only refuses a model.

    Args:
        module: the class of the modules with most of the other weights. share: the part of the decoder layers' weights in no linear layer.
    """
    does = "prunes" if kind == "prune" else "quantizes"
    return (
        f"{architecture}: {method} {does} linear layers, and {share:.0%} of the blocks' weights are in {module}, which is none; "
        "the result would stay about as large as it is"
    )
