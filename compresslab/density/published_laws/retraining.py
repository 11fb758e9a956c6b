"""Loss after pruning and training on: the P2 law (Chen et al. 2024)."""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

from compresslab.density.published_laws.law import Law

LAW = Law(
    name="retraining",
    cited="Chen et al. 2024",
    arxiv="2411.10272",
    formula="L = L0 + ρ^-γ N0^-δ (N_C / N0^α + D_C / D^β + E)",
    predicts="loss in nats a token of the training text after a share ρ is pruned and the model is trained on D tokens",
    models="Llama-3 and Qwen-2.5, pruned in depth, in width and 2:4, trained on SlimPajama",
    missing="all seven coefficients",
    domain=MappingProxyType({"params": (0.5e9, 8e9), "tokens": (0.0, 1e9), "removed": (0.15, 0.35)}),
)


class Coefficients(NamedTuple):
    """The seven coefficients of the law, which the paper fits for each method of pruning."""

    alpha: float
    beta: float
    gamma: float
    delta: float
    n_c: float
    d_c: float
    e: float


def loss(before: float, params: float, removed: float, tokens: float, fitted: Coefficients) -> float:
    """L after pruning and training, in the unit of L0.

    Args:
        before: L0, the loss before pruning. params: N0, parameters before pruning. removed: ρ. tokens: D. The units of N0 and D are those
            of the fit.
    """
    shortfall = fitted.n_c / params**fitted.alpha + fitted.d_c / tokens**fitted.beta + fitted.e
    return float(before + removed**-fitted.gamma * params**-fitted.delta * shortfall)
