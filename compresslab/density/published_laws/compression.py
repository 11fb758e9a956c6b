"""Loss after structured pruning and recovery: Compression Laws for Large Language Models (Sengupta et al. 2025)."""

from __future__ import annotations

from types import MappingProxyType

from compresslab.density.published_laws.law import Law

LAW = Law(
    name="compression",
    cited="Sengupta et al. 2025",
    arxiv="2504.04342v1",
    formula="L = L0^α (1 + r)^β (1 + 1 / (D + 1))^γ",
    predicts="test loss, or mean accuracy, after a share r is cut and the model is trained on D tokens",
    models="Qwen-2.5 and LLaMA-3, cut by SliceGPT and PruneNet",
    missing="α, β, γ and the unit of D",
    domain=MappingProxyType({"params": (0.5e9, 14e9), "removed": (0.1, 0.9)}),
)


def loss(before: float, removed: float, tokens: float, alpha: float, beta: float, gamma: float) -> float:
    """L of a cut model.

    Args:
        before: L0 of the model before. removed: r. tokens: D, in the unit of the fit of γ.
    """
    return float(before**alpha * (1 + removed) ** beta * (1 + 1 / (tokens + 1)) ** gamma)
