"""Loss of a student that is trained from scratch on a teacher's distributions: Distillation Scaling Laws (Busbridge et al. 2025)."""

from __future__ import annotations

import math
from types import MappingProxyType

from compresslab.density.published_laws.law import Law

LAW = Law(
    name="distillation",
    cited="Busbridge et al. 2025",
    arxiv="2502.08606",
    formula="L_S = L_T + L_T^-c0 (1 + (L_T / (L̃_S d1))^(1/f1))^(-c1 f1) (A' / N_S^α' + B' / D_S^β')^γ'",
    predicts="loss of the student in nats a token of C4",
    models="students with random weights at the start, of the teacher's architecture, on English C4",
    source="Table 6 of the second version, with 90% intervals",
    domain=MappingProxyType({"params": (143e6, 12.6e9), "tokens": (4e9, 512e9)}),
)

A, B, E, ALPHA, BETA, GAMMA = 3355.0, 18186.0, 1.220, 0.408, 0.431, 0.452
"""The supervised law, equation 1, fitted on 73 runs."""

A_S, B_S, ALPHA_S, BETA_S, GAMMA_S = 2243.0, 24181.0, 0.321, 0.637, 0.764
C0, C1, F1, D1 = 2.549, 522.6, 0.090, 1.315
"""The distillation law, equation 8, fitted on 697 runs."""


def supervised_loss(params: float, tokens: float) -> float:
    """L̃ in nats a token of a model that is trained on text.

    Args:
        params: parameters without the embedding. tokens: training tokens.
    """
    return float(E + (A / params**ALPHA + B / tokens**BETA) ** GAMMA)


def student_loss(params: float, tokens: float, teacher_loss: float) -> float:
    """L_S in nats a token.

    Args:
        params: N_S, parameters of the student without the embedding. tokens: D_S, those of the distillation.
        teacher_loss: L_T, in nats a token of the same text.
    """
    gap = math.log(teacher_loss / (supervised_loss(params, tokens) * D1)) / F1
    # ln(1 + e^x), which is x for a large x, where e^x leaves the range of floating point.
    ln_transition = gap + math.log1p(math.exp(-gap)) if gap > 0 else math.log1p(math.exp(gap))
    mimicry = (A_S / params**ALPHA_S + B_S / tokens**BETA_S) ** GAMMA_S
    return float(teacher_loss + teacher_loss**-C0 * math.exp(-C1 * F1 * ln_transition) * mimicry)
