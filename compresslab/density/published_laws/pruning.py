"""Performance after pruning without recovery: Pruning Laws for Large Language Models (Sengupta et al. 2026)."""

from __future__ import annotations

from types import MappingProxyType

from compresslab.density.published_laws.law import Law

LAW = Law(
    name="pruning",
    cited="Sengupta et al. 2026",
    arxiv="2504.04342v2",
    formula="L = L0 P0 (1 - r)^α",
    predicts="accuracy, or 1 / ln(perplexity) for language modelling, after a share r of the weights is removed",
    models="OPT, LLaMA and Phi-3, pruned by SparseGPT, LaCo and SliceGPT",
    source="quotations of the second version of the paper in a public repository",
    missing="P0",
    domain=MappingProxyType({"params": (1.3e9, 30e9), "removed": (0.1, 0.9)}),
)

EXPONENTS = {"reasoning": 0.22, "question answering": 2.42, "language modelling": 0.73}
"""α by the kind of task."""

COLLAPSE = 0.7
"""The share removed from which on "performance consistently collapses" whatever the size ("once pruning ratios exceed 70-80%")."""


def performance(before: float, removed: float, factor: float, exponent: float) -> float:
    """L of a pruned model.

    Args:
        before: L0 of the model before. removed: r, the share of the weights that is removed. factor: P0. exponent: α.
    """
    return float(before * factor * (1 - removed) ** exponent)
