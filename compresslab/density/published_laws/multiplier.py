"""Effective parameters of models that are trained compressed: Compression Scaling Laws (Frantar et al. 2025)."""

from __future__ import annotations

from compresslab.density.published_laws.law import Law

LAW = Law(
    name="multiplier",
    cited="Frantar et al. 2025",
    arxiv="2502.16440",
    formula="L = a / (N eff(C))^b + c / D^d + e",
    predicts="the factor eff by which compressing multiplies the number of parameters that count",
    models="models that were trained compressed from the start",
    source="a summary (sciencestack.ai/paper/2502.16440) with these two values and two of weights and activations together",
    missing="eff of other bit widths and shares of zeros",
)

WEIGHT_BITS = {4: 0.923}
"""eff of weights at this many bits, activations at 16."""

ZEROS = {0.5: 0.871}
"""eff of weights of which this share is zero; N counts the zeros."""

TOLERANCE = 0.005
"""Rounding leaves a share of zeros this near to the share that was asked for."""


def of_bits(bits: int) -> float | None:
    """eff of weights at `bits` bits; `None` where no value is known."""
    return WEIGHT_BITS.get(bits)


def of_zeros(share: float) -> float | None:
    """eff of weights of which `share` is zero; `None` where no value is known."""
    return next((value for known, value in ZEROS.items() if abs(share - known) <= TOLERANCE), None)
