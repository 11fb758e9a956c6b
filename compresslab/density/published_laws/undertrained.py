"""Loss that rounding the weights adds after training: Low-Bit Quantization Favors Undertrained LLMs (Ouyang et al. 2024)."""

from __future__ import annotations

from types import MappingProxyType

from compresslab.density.published_laws.law import Law

LAW = Law(
    name="undertrained",
    cited="Ouyang et al. 2024",
    arxiv="2411.17691",
    formula="Δ = k D^β / (N^α P^γ)",
    predicts="nats a token that rounding the weights to P bits adds to the held-out loss",
    models="checkpoints of Pythia, rounded by GPTQ",
    source="a summary in a public repository; a second one has α and β in two digits. The paper's own text was not within reach",
    domain=MappingProxyType({"params": (85e6, 11.3e9), "tokens": (1e9, 206e9), "bits": (2, 4)}),
)

K, BETA, ALPHA, GAMMA = 0.017, 0.5251, 0.2261, 5.4967


def degradation(params: float, tokens: float, bits: float) -> float:
    """Δ in nats a token.

    Args:
        params: N, parameters without the embedding. tokens: D, training tokens. bits: P, bits of a weight.
    """
    return float(K * tokens**BETA / (params**ALPHA * bits**GAMMA))
