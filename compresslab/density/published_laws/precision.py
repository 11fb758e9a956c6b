"""Loss that rounding the weights adds after training: Scaling Laws for Precision (Kumar et al. 2024)."""

from __future__ import annotations

import math
from types import MappingProxyType

from compresslab.density.published_laws.law import Law

LAW = Law(
    name="precision",
    cited="Kumar et al. 2024",
    arxiv="2411.04330",
    formula="δ = C_T D^γ_D / N^γ_N exp(-P / γ_post)",
    predicts="nats a token that rounding the weights to P bits adds to the held-out loss",
    models="OLMo-style models trained on Dolma, rounded by GPTQ; the form was repeated with AWQ and RTN, with other constants",
    source="Table 2 in appendix K of the ICLR 2025 version",
    domain=MappingProxyType({"params": (30e6, 220e6), "tokens": (1.5e9, 26e9), "bits": (3, 16)}),
)

C_T, GAMMA_D, GAMMA_N, GAMMA_POST = 0.0598, 0.5068, 0.3439, 0.5907

OFFSET = 1.1277
"""b of Table 2. The paper says that its exponents were fitted with offsets which its formulas leave out, and not with which sign. A
prediction is therefore known up to a factor of exp(b) = 3.1 in both directions."""

VALIDATED = 1.7e9
"""Parameters of the largest models on which the paper checked its predictions."""

A, B, EXPONENT, E = 4.299e3, 1.806e4, 0.4965, 2.7648
"""The law of the loss before rounding, L = A N^-α + B D^-β + E, with α = β."""


def degradation(params: float, tokens: float, bits: float) -> float:
    """δ in nats a token, by the formula of the paper's text, without the offset.

    Args:
        params: N, parameters without the embedding. tokens: D, training tokens. bits: P, bits of a weight.
    """
    return float(C_T * tokens**GAMMA_D / params**GAMMA_N) * math.exp(-bits / GAMMA_POST)


def loss(params: float, tokens: float) -> float:
    """Held-out loss in nats a token before rounding, arguments as in `degradation`."""
    return float(A * params**-EXPONENT + B * tokens**-EXPONENT) + E


def size_ratio(params: float, tokens: float, added: float, tokens_per_parameter: float | None) -> float:
    """How much smaller a model of the paper's family is that has the loss of this one plus `added`: the ratio of the two sizes.

    Args:
        params, tokens: as in `degradation`. added: nats a token.
        tokens_per_parameter: training tokens of that family for each parameter; `None`: as many tokens as this model has.
    """
    # Along D = t N both terms of the law have the same power of N; at one number of tokens only the first depends on N.
    before = A * params**-EXPONENT if tokens_per_parameter is None else loss(params, tokens) - E
    return float((before / (before + added)) ** (1 / EXPONENT))
