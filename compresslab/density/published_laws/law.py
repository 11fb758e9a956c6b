"""What is known of a published law besides its formula: where it comes from, and for which models and settings it was fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

UNITS = {"params": "parameters without the embedding", "tokens": "training tokens", "bits": "bits", "removed": "of the weights removed"}
"""The quantities of a domain, in words."""


@dataclass(frozen=True)
class Law:
    """A published law.

    Attributes:
        name: a key, such as "precision". cited: authors and year. arxiv: the preprint's number.
        formula: as the paper writes it. predicts: the quantity with its unit.
        source: where the coefficients were read. missing: which coefficients could not be found, "" if none.
        domain: smallest and largest value of each quantity in the fit, by a key of `UNITS`. models: what the law was fitted on, in words.
    """

    name: str
    cited: str
    arxiv: str
    formula: str
    predicts: str
    models: str
    source: str = ""
    missing: str = ""
    domain: Mapping[str, tuple[float, float]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def not_found(self) -> str:
        """That some coefficients have no source, as a reason to predict nothing."""
        return f"{self.missing} could not be found in a source"

    @property
    def reference(self) -> str:
        """Authors, year and preprint."""
        return f"{self.cited} (arXiv {self.arxiv})"

    def outside(self, **values: float) -> list[str]:
        """The quantities that lie outside the fit, each in words with the range of the fit; empty inside it."""
        return [
            f"{short(values[name])} {UNITS[name]} (fitted on {short(low)} to {short(high)})"
            for name, (low, high) in self.domain.items()
            if name in values and not low <= values[name] <= high
        ]


def short(value: float) -> str:
    """A number in three digits, with M, B or T from a million on."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if value >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"
