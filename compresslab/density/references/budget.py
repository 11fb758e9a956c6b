"""D0: the training tokens that a reference is given when a model is read off it.

The default grows with the size: 200 tokens a parameter, ten times Chinchilla's 20 (Hoffmann et al. 2022). The OLMo ladder was trained
at 0.5 to 10 times Chinchilla, so every size in its fit is read where its own models were. At one number of tokens for all sizes, such as
the Densing paper's 1T, every reading lies outside the runs of the ladder, which end at 634B. `experiments/ruler` has the errors of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from compresslab.density.references.laws import Array
from compresslab.errors import BadInput
from compresslab.recipe.schema import DensityConfig


@dataclass(frozen=True)
class Budget:
    """D0 as a number of tokens for all sizes, or as tokens for each parameter. Exactly one of the two is given.

    Raises:
        BadInput: a value that is not positive and finite.
    """

    tokens: float | None = None
    per_parameter: float | None = None

    def __post_init__(self) -> None:
        if (self.tokens is None) == (self.per_parameter is None):
            raise BadInput("give D0 either as a number of tokens or as tokens a parameter")
        value = self.tokens if self.tokens is not None else self.per_parameter
        assert value is not None, "one of the two is given"
        if not (math.isfinite(value) and value > 0):
            raise BadInput(f"D0 is {value:g}; it must be positive and finite")

    def at(self, params: float) -> float:
        """The tokens given to a model of `params` parameters."""
        return self.tokens if self.tokens is not None else params * (self.per_parameter or 0.0)

    def of_sizes(self, params: Array) -> Array:
        """The same for many sizes."""
        return params * self.per_parameter if self.per_parameter is not None else params * 0.0 + (self.tokens or 0.0)

    def __str__(self) -> str:
        """As text: "1T tokens", "200 tokens a parameter"."""
        return f"{format_tokens(self.tokens)} tokens" if self.tokens is not None else f"{self.per_parameter:g} tokens a parameter"


def default_budget() -> Budget:
    """The budget of a study that names none."""
    return budget_of(DensityConfig())


def budget_of(config: DensityConfig) -> Budget:
    """The budget of a recipe."""
    return Budget(tokens=config.tokens) if config.tokens is not None else Budget(per_parameter=config.tokens_per_parameter)


def format_tokens(tokens: float) -> str:
    """A number of tokens as text: 300B, 15T."""
    return f"{tokens / 1e12:g}T" if tokens >= 1e12 else f"{tokens / 1e9:g}B"
